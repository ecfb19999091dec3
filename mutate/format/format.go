// Package format turns image files of other formats than raw into raw ones.
//
// People have cloud images: qcow2, often compressed, or vmdk, vhdx, vdi and vpc from
// other hypervisors. What a file is, is told by its bytes, never by its name.
//
// A stranger made the file. The headers of these formats can name other files, of
// which the image then holds a copy (a backing file, an external data file, an extent),
// and claim any size. So nothing is believed before the gate: the file names no other,
// or one that was allowed in its own directory; its tables lie in it, and give no more
// plain clusters than it has; and whoever wants the image is asked for the room before it is
// taken.
//
// qcow2 is read here. Clusters that are not compressed are shared with the file, where
// the filesystem can: a qcow2 of 2 GiB is a raw image in some milliseconds. The others
// are rare, and qemu-img reads them, under limits, once they are through the gate.
//
// A further format is a file with its reader, and a line in formats.
package format

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/imgmut/imgmut/mutate/compress"
	"github.com/imgmut/imgmut/mutate/fault"
)

// Options are what the one who wants an image allows, and how it is told.
type Options struct {
	// Beside is the directory of the files to one of which the image may be the difference; ""
	// allows none.
	Beside string
	// Room is asked before that many bytes are written to the disk.
	Room func(bytes int64) error
	// Progress is told the bytes done and the bytes there are to do.
	Progress func(done, total int64)
}

// format is one that is known.
type format struct {
	name string
	// is says whether a file begins and ends so: with [headSize] and [tailSize]
	// bytes, or all of a shorter one.
	is   func(head, tail []byte) bool
	read reader
}

const (
	headSize = 4096
	tailSize = 512
)

// formats are those that are known, in the order of asking.
var formats = []format{
	{"qcow2", begins(0, magicQcow2), readQcow2},
	{"vmdk", begins(0, magicVMDK), byQemu("vmdk")},
	{"vmdk", begins(0, "COWD"), refuse("of an old ESX, and imgmut does not read those", convert("vmdk"))},
	{"vmdk", begins(0, "# Disk DescriptorFile"), refuse("a text that describes other files, which are the image",
		"import the file that it names behind FLAT, which is raw; or else "+convert("vmdk"))},
	{"vhdx", begins(0, "vhdxfile"), byQemu("vhdx")},
	{"vdi", begins(0x40, "\x7f\x10\xda\xbe"), byQemu("vdi")},
	{"vpc", begins(0, magicVPC), byQemu("vpc")},
	{"vpc", endsVPC, byQemu("vpc")}, // of a fixed size
	{"qed", begins(0, "QED\x00"), refuse("of a format that was given up", convert("qed"))},
	{"tar", begins(257, "ustar"), refuse("an archive of files",
		"unpack it with tar -x, and import the image that is in it")},
}

// convert is how to get a raw image of what imgmut does not read.
func convert(format string) string {
	return "qemu-img convert -f " + format + " -O raw makes a raw image of it"
}

// magicVPC is at the end of each vpc file, and at the beginning of those that grow.
const magicVPC = "conectix"

func begins(at int, magic string) func(head, tail []byte) bool {
	return func(head, _ []byte) bool { return len(head) >= at && bytes.HasPrefix(head[at:], []byte(magic)) }
}

// endsVPC says whether the last sector of a file is the footer of a vpc: raw disks can end
// in some remains of one. Its sum is the complement of that of all other bytes (Virtual
// Hard Disk Image Format Specification).
func endsVPC(_, tail []byte) bool {
	const sum = 64
	if len(tail) < tailSize || !bytes.HasPrefix(tail, []byte(magicVPC)) {
		return false
	}
	want := ^be.Uint32(tail[sum:])
	for n, b := range tail {
		if n < sum || n >= sum+4 {
			want -= uint32(b)
		}
	}
	return want == 0
}

// Image is what a file holds.
type Image struct {
	File *os.File // raw
	// Is says what the file is, from the outside in: "xz", "qcow2". It is empty for a
	// raw file, which is File itself.
	Is []string
	// Backed says that other files are part of it, so that it may change though the
	// file does not.
	Backed bool
}

// Close closes the raw image, and removes it if it was made of src.
func (i *Image) Close(src *os.File) error {
	if i.File == src {
		return nil
	}
	return errors.Join(i.File.Close(), os.Remove(i.File.Name()))
}

// Open gives the raw image that a file holds. What it makes is a file in dir. Errors
// about the file are of class [fault.Image].
func Open(ctx context.Context, src *os.File, dir string, o Options) (*Image, error) {
	head, tail, err := bothEnds(src)
	if err != nil {
		return nil, err
	}
	i := &Image{File: src}
	if m := compress.Of(head); m.Name != "" {
		if m.NoEnd {
			return nil, fault.New(fault.Image, "compress it in a form that has an end, as lz4 does without -l",
				"it is %s of a form in which a file that was cut off looks whole", m.Name)
		}
		if err := i.become(ctx, format{name: m.Name, read: unpack(m)}, src, dir, o); err != nil {
			return nil, err
		}
		o.Beside = "" // it is nowhere, so nothing can be beside it
		if head, tail, err = bothEnds(i.File); err != nil {
			return nil, errors.Join(err, i.Close(src))
		}
		if again := compress.Of(head); again.Name != "" {
			err := fault.New(fault.Image, "unpack it, and import what it holds",
				"it is compressed twice: by %s, and by %s", m.Name, again.Name)
			return nil, errors.Join(err, i.Close(src))
		}
	}
	for _, f := range formats {
		if f.is(head, tail) { // what comes out of it is raw, whatever it looks like: a guest wrote that
			if err := i.become(ctx, f, src, dir, o); err != nil {
				return nil, err
			}
			break
		}
	}
	return i, nil
}

// Of says what a file is that is not raw, by its outermost form; "" if it is.
func Of(f *os.File) (string, error) {
	head, tail, err := bothEnds(f)
	if err != nil {
		return "", err
	}
	if m := compress.Of(head); m.Name != "" {
		return m.Name, nil
	}
	for _, f := range formats {
		if f.is(head, tail) {
			return f.name, nil
		}
	}
	return "", nil
}

// become goes one format further in. If it fails, nothing is left of the image.
func (i *Image) become(ctx context.Context, f format, src *os.File, dir string, o Options) error {
	outer := *i
	dst, err := os.CreateTemp(dir, "*.raw")
	if err != nil {
		return errors.Join(err, outer.Close(src))
	}
	i.File, i.Is = dst, append(i.Is, f.name)
	i.Backed, err = f.read(ctx, dst, outer.File, o)
	if err != nil {
		err = errors.Join(fmt.Errorf("read %s: %w", f.name, err), i.Close(src))
	}
	return errors.Join(err, outer.Close(src))
}

// bothEnds are the first and the last bytes of a file.
func bothEnds(f *os.File) (head, tail []byte, err error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	head, tail = make([]byte, min(headSize, fi.Size())), make([]byte, min(tailSize, fi.Size()))
	if _, err := f.ReadAt(head, 0); err != nil && err != io.EOF {
		return nil, nil, err
	}
	if _, err := f.ReadAt(tail, fi.Size()-int64(len(tail))); err != nil && err != io.EOF {
		return nil, nil, err
	}
	return head, tail, nil
}

// reader makes the empty file dst the raw image that src holds. backed says that it
// holds it together with other files.
type reader func(ctx context.Context, dst, src *os.File, o Options) (backed bool, err error)

// refuse is the reader of what imgmut does not read.
func refuse(what, mend string) reader {
	return func(context.Context, *os.File, *os.File, Options) (bool, error) {
		return false, fault.New(fault.Image, mend, "it is %s", what)
	}
}

// damaged is the error about a file that is not whole, or made to do harm.
func damaged(text string, args ...any) error {
	return fault.New(fault.Image, "fetch the file again, or see what qemu-img check says of it", text, args...)
}

// maxSize is how large an image may say that it is, in bytes.
const maxSize = 64 << 40
