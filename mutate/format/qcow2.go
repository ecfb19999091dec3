package format

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"os"

	"github.com/imgmut/imgmut/mutate/fault"
)

// The form of a qcow2 file is that of docs/interop/qcow2.rst of QEMU: a header, and two
// levels of tables that say of each cluster of the image where in the file it is.

const magicQcow2 = "QFI\xfb"

var be = binary.BigEndian

// qcow2 is the header of an image, which has been through the gate.
type qcow2 struct {
	f        *os.File
	fileSize int64
	size     int64  // of the image, in bytes
	cluster  int64  // bytes
	bits     uint   // log2 of cluster
	l1       int64  // offset of the first table
	zstd     bool   // is how clusters are compressed; else by deflate
	zeros    bool   // an entry can say that a cluster is zeros: not in version 2
	sub      int64  // parts of a cluster that are there or not by themselves
	backing  string // name of the file that it is the difference to, or ""
	raw      bool   // is what that is; else qcow2
}

// Incompatible features. Of those not named here nothing is known.
const (
	featureDirty    = 1 << 0
	featureCorrupt  = 1 << 1
	featureDataFile = 1 << 2
	featureZstd     = 1 << 3 // there is a byte that says how clusters are compressed
	featureExtended = 1 << 4
)

// parseQcow2 is the gate: nothing but the header is read, and no file that it names.
func parseQcow2(f *os.File) (*qcow2, error) {
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	h := make([]byte, headSize)
	if n, err := f.ReadAt(h, 0); err != nil && err != io.EOF {
		return nil, err
	} else if n < 104 {
		return nil, damaged("it ends in its header")
	}
	q := &qcow2{
		f: f, fileSize: fi.Size(), sub: 1,
		size: int64(be.Uint64(h[24:])), bits: uint(be.Uint32(h[20:])), l1: int64(be.Uint64(h[40:])),
	}
	version := be.Uint32(h[4:])
	switch {
	case version == 1:
		return nil, fault.New(fault.Image, convert("qcow"), "it is of the first version of the format")
	case version != 2 && version != 3:
		return nil, damaged("it is of version %d, and there are 2 and 3", version)
	case q.bits < 9 || q.bits > 21:
		return nil, damaged("its clusters are of 2^%d bytes", q.bits)
	case be.Uint32(h[32:]) != 0:
		return nil, fault.New(fault.Image, "decrypt it with qemu-img convert", "it is encrypted")
	case q.size < 0 || q.size > maxSize || q.size%512 != 0:
		return nil, damaged("it says that it has %d bytes", be.Uint64(h[24:]))
	}
	q.cluster = 1 << q.bits
	header := int64(72)
	if q.zeros = version == 3; q.zeros {
		header = int64(be.Uint32(h[100:]))
		if err := q.features(be.Uint64(h[72:]), h, header); err != nil {
			return nil, err
		}
	}
	if at := int64(be.Uint64(h[8:])); at != 0 || be.Uint32(h[16:]) != 0 {
		if err := q.readBacking(at, int64(be.Uint32(h[16:])), header); err != nil {
			return nil, err
		}
	}
	return q, q.checkL1(int64(be.Uint32(h[36:])))
}

func (q *qcow2) features(bits uint64, h []byte, header int64) error {
	switch {
	case bits&featureDataFile != 0:
		return elsewhere("qcow2")
	case bits&featureCorrupt != 0:
		return damaged("it is marked as damaged")
	case bits&featureDirty != 0:
		return fault.New(fault.Image, "stop the machine that uses it, or mend it with qemu-img check -r all",
			"it was not closed when it was written last")
	case bits&^(featureZstd|featureExtended) != 0:
		return fault.New(fault.Image, convert("qcow2"), "it has features that imgmut does not know (%#x)", bits)
	}
	if bits&featureZstd != 0 && (header < 105 || h[104] != 1) {
		return damaged("it does not say how it is compressed")
	}
	q.zstd = bits&featureZstd != 0
	if bits&featureExtended != 0 {
		if q.sub = 32; q.bits < 14 {
			return damaged("its clusters are of 2^%d bytes, and in parts", q.bits)
		}
	}
	return nil
}

// readBacking reads the name of the backing file, and of what format that is.
func (q *qcow2) readBacking(at, length, header int64) error {
	const maxName, extensionBacking = 1023, 0xe2792aca
	if length < 1 || length > maxName || at < header || at > q.cluster-length {
		return damaged("the name of its backing file is of %d bytes at %d", length, at)
	}
	head := make([]byte, at+length)
	if _, err := q.f.ReadAt(head, 0); err != nil {
		return damaged("it ends in its header")
	}
	q.backing = string(head[at:])
	for ext := head[min(header, at):at]; len(ext) >= 8 && be.Uint32(ext) != 0; {
		kind, size := be.Uint32(ext), (int64(be.Uint32(ext[4:]))+7)&^7
		if size > int64(len(ext)-8) {
			return damaged("its header is longer than it may be")
		}
		if kind == extensionBacking {
			switch name := string(bytes.TrimRight(ext[8:8+size], "\x00")); name {
			case "raw", "qcow2":
				q.raw = name == "raw"
				return nil
			default:
				return fault.New(fault.Image, convert("qcow2"), "its backing file is of the format %q", name)
			}
		}
		ext = ext[8+size:]
	}
	return fault.New(fault.Image, "qemu-img rebase -u -F FORMAT -b FILE writes it down",
		"it does not say of what format its backing file is, and to guess that is not safe")
}

// entrySize is how long an entry of a second table is, in bytes.
func (q *qcow2) entrySize() int64 {
	if q.sub > 1 {
		return 16
	}
	return 8
}

// perL2 is how many clusters a second table is of.
func (q *qcow2) perL2() int64 { return q.cluster / q.entrySize() }

// checkL1 says whether the first table is large enough for the image, and in the file.
func (q *qcow2) checkL1(entries int64) error {
	const most = 32 << 20 // bytes, as for QEMU
	need := (q.size + q.cluster*q.perL2() - 1) / (q.cluster * q.perL2())
	switch {
	case need > entries:
		return damaged("its table has %d entries, and %d bytes need %d", entries, q.size, need)
	case need*8 > most:
		return damaged("its table would have %d entries", need)
	case q.l1%q.cluster != 0 || q.l1 < 0 || q.l1 > q.fileSize-need*8:
		return damaged("its table is at %d, and it has %d bytes", q.l1, q.fileSize)
	}
	return nil
}

// run is a part of the image that is in the file.
type run struct {
	guest, length int64 // in the image
	host          int64 // in the file; where a compressed cluster begins
	packed        int64 // bytes in the file that hold it, if it is compressed
	zero          bool  // it is zeros, and nowhere
}

// runs gives what the tables say, in the order of the image. Nothing is given of what
// they leave out. There are no more clusters than the file holds.
func (q *qcow2) runs(ctx context.Context) iter.Seq2[run, error] {
	return func(yield func(run, error) bool) {
		w := walk{qcow2: q, yield: yield}
		err := w.all(ctx)
		if err == nil {
			err = w.flush()
		}
		if err != nil && !errors.Is(err, errEnough) {
			yield(run{}, err)
		}
	}
}

// errEnough says that no more runs are wanted.
var errEnough = errors.New("enough")

// walk goes through the tables.
type walk struct {
	*qcow2
	yield            func(run, error) bool
	next             run   // that may grow
	tables, clusters int64 // that were seen
}

func (w *walk) all(ctx context.Context) error {
	l1 := io.NewSectionReader(w.f, w.l1, 1<<62)
	buf, table := make([]byte, 8), make([]byte, w.cluster)
	for at := int64(0); at < w.size; at += w.cluster * w.perL2() {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if _, err := io.ReadFull(l1, buf); err != nil {
			return damaged("read its table: %w", err)
		}
		l2 := w.address(be.Uint64(buf))
		if l2 == 0 {
			continue
		}
		if w.tables++; w.tables > w.fileSize>>w.bits {
			return damaged("it has more tables than it has room for")
		}
		if l2%w.cluster != 0 || l2 > w.fileSize-w.cluster {
			return damaged("it has a table at %d, and %d bytes", l2, w.fileSize)
		}
		if _, err := w.f.ReadAt(table, l2); err != nil {
			return damaged("read a table: %w", err)
		}
		for n := int64(0); n < w.perL2() && at+n*w.cluster < w.size; n++ {
			if err := w.entry(at+n*w.cluster, table[n*w.entrySize():][:w.entrySize()]); err != nil {
				return err
			}
		}
	}
	return nil
}

// address is where an entry leads, in bytes.
func (q *qcow2) address(entry uint64) int64 { return int64(entry & 0x00ff_ffff_ffff_fe00) }

// entry takes the entry of the cluster at guest.
func (w *walk) entry(guest int64, e []byte) error {
	const compressed, zero = 1 << 62, 1
	v := be.Uint64(e)
	if v&compressed != 0 {
		shift := 62 - (w.bits - 8)
		host := int64(v & (1<<shift - 1))
		sectors := int64(v&(1<<62-1)) >> shift
		packed := min((sectors+1)*512-host%512, w.fileSize-host)
		if packed <= 0 {
			return damaged("a cluster is at %d, and it has %d bytes", host, w.fileSize)
		}
		return w.add(run{guest: guest, length: w.cluster, host: host, packed: packed})
	}
	host := w.address(v)
	if host%w.cluster != 0 {
		return damaged("a cluster is at %d, where none can be", host)
	}
	if host != 0 {
		if w.clusters++; w.clusters > w.fileSize>>w.bits+1 {
			return damaged("it has more clusters than it has room for")
		}
	}
	if v&zero != 0 && !w.zeros {
		return damaged("a cluster has a mark that its version does not know")
	}
	if w.sub == 1 {
		return w.part(guest, host, w.cluster, host != 0, v&zero != 0)
	}
	has, zeros, size := be.Uint32(e[12:]), be.Uint32(e[8:]), w.cluster/w.sub
	if has&zeros != 0 {
		return damaged("a part of a cluster is both there and zeros")
	}
	for n := range w.sub {
		if err := w.part(guest+n*size, host+n*size, size, has>>n&1 != 0, zeros>>n&1 != 0); err != nil {
			return err
		}
	}
	return nil
}

// part takes a cluster, or a part of one, that is not compressed.
func (w *walk) part(guest, host, length int64, has, zero bool) error {
	switch {
	case zero:
		return w.add(run{guest: guest, length: length, zero: true})
	case has && host < w.cluster:
		return damaged("a cluster is in its header")
	case has:
		return w.add(run{guest: guest, length: length, host: host})
	}
	return nil
}

// add gives a run, together with those before it that it goes on from.
func (w *walk) add(r run) error {
	r.length = min(r.length, w.size-r.guest)
	if r.length <= 0 {
		return nil
	}
	if r.packed == 0 && !r.zero && r.host > w.fileSize-r.length {
		return damaged("it ends at byte %d, in the middle of its clusters", w.fileSize)
	}
	n := &w.next
	follows := n.length > 0 && n.packed == 0 && r.packed == 0 && n.zero == r.zero && n.guest+n.length == r.guest
	if follows && (r.zero || n.host+n.length == r.host) {
		n.length += r.length
		return nil
	}
	err := w.flush()
	w.next = r
	return err
}

// flush gives the run that is held back.
func (w *walk) flush() error {
	if w.next.length > 0 && !w.yield(w.next, nil) {
		return errEnough
	}
	w.next = run{}
	return nil
}
