package format

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/tool"
)

// How qemu-img is to open the image, and where to: by descriptors, so that no name is
// taken for a protocol, and nothing can be put in its place.
const (
	theFile = "/proc/self/fd/3"
	theRaw  = "/proc/self/fd/4"
)

// What qemu-img may use of the machine, whatever an image says.
var (
	toLook    = tool.Limits{Memory: 1 << 30, CPU: 30}
	toConvert = tool.Limits{Memory: 2 << 30}
)

// byQemu is the reader of a format that qemu-img reads.
func byQemu(name string) reader {
	return func(ctx context.Context, dst, src *os.File, o Options) (bool, error) {
		q := qemu{name, src}
		size, err := q.gate(ctx)
		if err != nil {
			return false, err
		}
		data, err := q.measure(ctx)
		if err == nil {
			err = o.Room(data)
		}
		if err == nil {
			err = dst.Truncate(size)
		}
		if err != nil {
			return false, err
		}
		return false, q.run(ctx, tool.Call{Files: []*os.File{src, dst}, Limits: toConvert,
			Args: []string{"convert", "-f", name, "-O", "raw", "-n", "--target-is-zero", "-W", theFile, theRaw}})
	}
}

// qemu is an image that qemu-img reads.
type qemu struct {
	format string
	f      *os.File
}

// info is what qemu-img says of an image.
type info struct {
	Size     int64  `json:"virtual-size"`
	Backing  string `json:"backing-filename"`
	Secret   bool   `json:"encrypted"`
	Specific struct {
		Data struct {
			CreateType string `json:"create-type"`
			Extents    []struct {
				File string `json:"filename"`
			} `json:"extents"`
		} `json:"data"`
	} `json:"format-specific"`
}

// gate refuses what is not all in the file, and gives the size of the image.
func (q qemu) gate(ctx context.Context) (size int64, err error) {
	if err := q.onItsOwn(); err != nil {
		return 0, err
	}
	var out bytes.Buffer
	look := tool.Call{Limits: toLook, Stdout: &out, Args: []string{"info", "--output=json", "-f", q.format, theFile}}
	if err := q.run(ctx, look); err != nil {
		return 0, err
	}
	var i info
	if err := json.Unmarshal(out.Bytes(), &i); err != nil {
		return 0, fmt.Errorf("read what qemu-img says of it: %w", err)
	}
	switch {
	case i.Backing != "" || !i.whole(q.format):
		return 0, elsewhere(q.format)
	case i.Secret:
		return 0, fault.New(fault.Image, "decrypt it with qemu-img convert", "it is encrypted")
	case i.Size < 0 || i.Size > maxSize:
		return 0, damaged("it says that it has %d bytes", i.Size)
	}
	return i.Size, nil
}

// whole says whether a vmdk is one that has all its bytes in one file: by what it says
// after all that was looked at before.
func (i info) whole(format string) bool {
	d := i.Specific.Data
	for _, e := range d.Extents {
		if e.File != theFile {
			return false
		}
	}
	return format != "vmdk" || d.CreateType == "monolithicSparse" || d.CreateType == "streamOptimized"
}

// elsewhere is the error about an image that names other files.
func elsewhere(format string) error {
	return fault.New(fault.Image, convert(format)+", if it is your own", "it says that its bytes are in another file")
}

const magicVMDK = "KDMV"

// onItsOwn says whether qemu-img can be let open the file. It would take a vmdk
// without a size for a text, and open all files that this names; and what a vpc does
// not say because another file does, for zeros.
func (q qemu) onItsOwn() error {
	head, tail, err := bothEnds(q.f)
	if err != nil {
		return err
	}
	const capacity, sort, difference = 12, 60, 4
	switch {
	case q.format == "vmdk" && (len(head) < capacity+8 || binary.LittleEndian.Uint64(head[capacity:]) == 0),
		q.format == "vpc" && (len(tail) < sort+4 || be.Uint32(tail[sort:]) == difference):
		return elsewhere(q.format)
	}
	return nil
}

// measure gives how many bytes of the image are data. All of them are in the file:
// what a file that was cut off lacks, qemu-img would take for zeros.
func (q qemu) measure(ctx context.Context) (data int64, err error) {
	fi, err := q.f.Stat()
	if err != nil {
		return 0, err
	}
	r, w := io.Pipe()
	ran := make(chan error, 1)
	go func() {
		err := q.run(ctx, tool.Call{Limits: toConvert, Stdout: w,
			Args: []string{"map", "--output=json", "-f", q.format, theFile}})
		w.CloseWithError(err)
		ran <- err
	}()
	data, err = sumMap(r, fi.Size())
	r.CloseWithError(err)
	return data, errors.Join(<-ran, err)
}

// sumMap adds up the data in a map of qemu-img, for a file of that size.
func sumMap(r io.Reader, size int64) (data int64, err error) {
	j := json.NewDecoder(bufio.NewReader(r))
	if _, err := j.Token(); err != nil { // the bracket
		return 0, err
	}
	for j.More() {
		var e struct {
			Length int64
			Data   bool
			Offset *int64 // of what is compressed there is none
		}
		if err := j.Decode(&e); err != nil {
			return 0, err
		}
		if !e.Data {
			continue
		}
		data += e.Length
		if e.Offset != nil && *e.Offset > size-e.Length {
			return 0, damaged("it ends at byte %d, in the middle of its data", size)
		}
	}
	return data, nil
}

// run runs qemu-img. That it fails is the file's fault, if it runs at all.
func (q qemu) run(ctx context.Context, c tool.Call) error {
	c.Program, c.What = "qemu-img", "read "+q.f.Name()
	if c.Files == nil {
		c.Files = []*os.File{q.f}
	}
	_, err := tool.Run(ctx, c)
	var exit *tool.ExitError
	switch {
	case !errors.As(err, &exit):
		return err
	case strings.Contains(exit.Report, "No space left on device"):
		return fmt.Errorf("%w: %w", err, unix.ENOSPC)
	}
	return damaged("%w", err)
}
