package bootc

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
)

// A layer of a container image is a tar; what ostree commits of it is nearly that. bootc
// has the difference in its filter (ostree-ext, tar/write.rs), and this is the same, but
// for what `ostree commit --tree=tar` cannot do and is done here for it: hard links to
// files of layers below, and directories that a layer has files in and does not list.
// Objects of an encapsulated commit become the files that are links to them.

// LayerFilter makes of a layer what ostree can commit. A stranger made the layer: its
// names lead nowhere but into the tree, and it may be as long as there is room.
type LayerFilter struct {
	Lower   *os.Root                // what the layers below it made, for hard links to that; nil if there is none
	Scratch string                  // a directory for one file, which has no name
	Room    func(bytes int64) error // is asked before that much more is written
}

// Left is what a filter has left out of a layer, or has found in it, that people should
// know of.
type Left struct {
	Devices int    // device nodes and pipes, which ostree has none of
	Device  string // the first of them
	Var     int    // files below /var, which no deployment that is there already gets
}

// Bounds of a layer.
const (
	maxHeld     = 256 << 20 // bytes of names and of headers that are kept in memory
	maxUnpacked = 1 << 40   // bytes of one layer
	maxName     = 4095      // bytes of a path, as the kernel has it
	roomStep    = 64 << 20  // bytes between two questions for room
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	objects  = "sysroot/ostree/repo/objects/"
)

// emptied are the directories that a system fills when it starts.
var emptied = []string{"run", "tmp", "proc", "sys", "dev"}

// filter is a LayerFilter at work.
type filter struct {
	LayerFilter
	in      *tar.Reader
	out     *tar.Writer // to headers
	headers *headers
	left    Left
	files   map[string]bool // that were written, by the name they have in the commit: true for a file
	held    int             // bytes of these, and of the headers of objects
	bytes   int64           // of files that were written
	asked   int64           // for how many of them there is room
	objects map[string]*object
	stash   *os.File
	waiting int   // how many objects are in stash
	end     int64 // of stash
}

// object is a file of an encapsulated commit.
type object struct {
	header *tar.Header
	at     int64  // in the stash
	first  string // the first name that it got, empty if it has none yet
}

// Copy reads a layer, an uncompressed tar, to the end of the tar, and writes what ostree
// can commit. Errors about the layer are of class [fault.Image].
func (f LayerFilter) Copy(ctx context.Context, in io.Reader, out io.Writer) (_ Left, err error) {
	to := &headers{out: out}
	w := &filter{
		LayerFilter: f, in: tar.NewReader(content.Reader(ctx, in, func(int) {})), out: tar.NewWriter(to), headers: to,
		files: map[string]bool{}, objects: map[string]*object{},
	}
	defer func() {
		if w.stash != nil {
			err = errors.Join(err, w.stash.Close())
		}
	}()
	if err := w.root(); err != nil {
		return w.left, layerError(ctx, err)
	}
	for {
		h, err := w.in.Next()
		if err == io.EOF {
			return w.left, w.out.Close()
		}
		if err == nil {
			err = w.entry(h)
		}
		if err != nil {
			return w.left, layerError(ctx, err)
		}
	}
}

// root writes the root of the tree, which a layer need not list.
func (w *filter) root() error {
	h := &tar.Header{Typeflag: tar.TypeDir, Name: ".", Mode: 0o755, ModTime: time.Unix(0, 0)}
	if of, err := w.lower("."); err != nil {
		return err
	} else if of != nil {
		h = of.header
	}
	return w.write(h, nil)
}

// layerError is whose fault an error is that came of reading a layer, or of writing.
func layerError(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case fault.Of(err) != "", errors.Is(err, errWrite):
		return err
	}
	return fault.New(fault.Image, "", "it is damaged: %w", err)
}

// errWrite is what went wrong when something was written: it says nothing of the layer.
var errWrite = errors.New("write")

func wrote(err error) error {
	if err != nil {
		err = fmt.Errorf("%w: %w", errWrite, err)
	}
	return err
}

func bad(name, format string, args ...any) error {
	return fault.New(fault.Image, "", "%.200q: %s", name, fmt.Sprintf(format, args...))
}

// place is where something of the layer is in the commit, empty if it has no place there.
func place(name string) (string, error) {
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch part {
		case "", ".":
		case "..":
			return "", bad(name, "it leads out of the tree")
		default:
			if len(part) > 255 {
				return "", bad(name, "it is longer than a name can be")
			}
			parts = append(parts, part)
		}
	}
	if len(name) > maxName || strings.ContainsRune(name, 0) {
		return "", bad(name, "it is longer than a path can be")
	}
	if len(parts) == 0 {
		return ".", nil
	}
	switch base := parts[len(parts)-1]; {
	case !strings.HasPrefix(base, whiteout) || base == opaque:
	case strings.HasPrefix(base, whiteout+whiteout): // notes of AUFS for itself
		return "", nil
	case base == whiteout, base == whiteout+".", base == whiteout+"..":
		return "", bad(name, "it removes the directory that it is in")
	}
	top, removed := strings.CutPrefix(parts[0], whiteout)
	switch {
	case top == "etc":
		parts = slices.Insert(parts, 0, "usr")
	case slices.Contains(emptied, top) && (removed || len(parts) > 1):
		return "", nil
	}
	return strings.Join(parts, "/"), nil
}

// entry filters one entry.
func (w *filter) entry(h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if strings.HasPrefix(path.Clean("/" + h.Name)[1:]+"/", "sysroot/ostree/") {
		return w.ofRepository(h)
	}
	name, err := place(h.Name)
	if err != nil || name == "" {
		return err
	}
	if strings.HasPrefix(name, "var/") {
		w.left.Var++
	}
	if uint64(h.Uid) >= 1<<32-1 || uint64(h.Gid) >= 1<<32-1 {
		return bad(h.Name, "nobody has the number %d:%d", h.Uid, h.Gid)
	}
	to := &tar.Header{
		Name: name, Mode: h.Mode & 0o7777, Uid: h.Uid, Gid: h.Gid, ModTime: time.Unix(0, 0), PAXRecords: xattrsOf(h),
	}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		to.Typeflag, to.Size = tar.TypeReg, h.Size
		return w.file(to, w.in)
	case tar.TypeDir:
		to.Typeflag = tar.TypeDir
		return w.write(to, nil)
	case tar.TypeSymlink:
		to.Typeflag, to.Linkname = tar.TypeSymlink, h.Linkname
		return w.write(to, nil)
	case tar.TypeLink:
		return w.link(to, h.Linkname)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if w.left.Devices++; w.left.Device == "" {
			w.left.Device = path.Clean("/" + h.Name)
		}
		return nil
	}
	return bad(h.Name, "it is of the type %q, which no layer has", h.Typeflag)
}

// xattrsOf are the extended attributes of an entry. Those of an overlay would be taken
// for its own by the next.
func xattrsOf(h *tar.Header) map[string]string {
	records := maps.Clone(h.PAXRecords)
	maps.DeleteFunc(records, func(key, _ string) bool {
		return !strings.HasPrefix(key, xattrRecord) || strings.HasPrefix(key, xattrRecord+"trusted.overlay.")
	})
	return records
}

// xattrRecord is before the name of an extended attribute, as star and all tools of
// containers write it.
const xattrRecord = "SCHILY.xattr."

// file writes a regular file.
func (w *filter) file(h *tar.Header, data io.Reader) error {
	if h.Size < 0 || h.Size > maxUnpacked-w.bytes {
		return bad(h.Name, "with it the layer has more than %d bytes", int64(maxUnpacked))
	}
	w.bytes += h.Size
	return w.write(h, data)
}

// write writes an entry, and before it the directories that it is in.
func (w *filter) write(h *tar.Header, data io.Reader) error {
	if err := w.parents(h.Name); err != nil {
		return err
	}
	if err := w.remember(h.Name, h.Typeflag == tar.TypeReg || h.Typeflag == tar.TypeLink); err != nil {
		return err
	}
	h.Format = tar.FormatPAX
	if !isASCII(h.Name) || !isASCII(h.Linkname) {
		// The reader would turn the names into the language of the machine, or fail to.
		h.PAXRecords = maps.Clone(h.PAXRecords)
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["hdrcharset"] = "BINARY"
	}
	if err := w.out.Flush(); err != nil { // what fills up the block of the entry before
		return wrote(err)
	}
	w.headers.begin()
	if err := w.out.WriteHeader(h); errors.Is(err, tar.ErrHeader) {
		return bad(h.Name, "it cannot be kept: %v", err)
	} else if err != nil {
		return wrote(err)
	}
	if err := w.headers.end(); err != nil {
		return wrote(err)
	}
	for rest := h.Size; rest > 0; {
		n := min(rest, roomStep)
		if w.asked < n {
			if err := w.Room(roomStep); err != nil {
				return err
			}
			w.asked += roomStep
		}
		w.asked -= n
		if err := w.copy(w.out, data, n); err != nil {
			return err
		}
		rest -= n
	}
	return nil
}

// copy copies n bytes, and tells which end failed.
func (w *filter) copy(to io.Writer, from io.Reader, n int64) error {
	read := &source{Reader: from}
	_, err := io.CopyN(to, read, n)
	switch {
	case err == nil:
		return nil
	case read.err == io.EOF || err == io.EOF:
		return io.ErrUnexpectedEOF
	case read.err != nil:
		return read.err
	}
	return wrote(err)
}

// source remembers why it could not be read.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(b []byte) (n int, err error) {
	n, s.err = s.Reader.Read(b)
	return n, s.err
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 })
}

// remember keeps the name of what was written.
func (w *filter) remember(name string, file bool) error {
	if _, known := w.files[name]; !known {
		if err := w.hold(len(name) + 64); err != nil { // what a map takes for an entry
			return err
		}
	}
	w.files[name] = file
	return nil
}

// hold counts bytes that stay in memory.
func (w *filter) hold(n int) error {
	if w.held += n; w.held > maxHeld {
		return fault.New(fault.Image, "", "the layer has more files than a tree can have")
	}
	return nil
}

// parents writes the directories that a file is in and that the layer has not listed, as
// they are in the layers below. Otherwise ostree would make some up, and they would be
// taken for what the layer wants.
func (w *filter) parents(name string) error {
	dir := path.Dir(name)
	if dir == "." {
		return nil
	}
	if _, known := w.files[dir]; known {
		return nil
	}
	h := &tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}
	if of, err := w.lower(dir); err != nil {
		return err
	} else if of != nil && of.header.Typeflag == tar.TypeDir {
		h = of.header
	} else if of != nil && of.data != nil {
		of.data.Close()
	}
	return w.write(h, nil)
}

// link writes a hard link, or the file itself, if that is in no place of this layer.
func (w *filter) link(h *tar.Header, target string) error {
	if o := w.objects[path.Clean("/" + target)[1:]]; o != nil {
		return w.linkObject(h, o)
	}
	to, err := place(target)
	if err != nil {
		return err
	}
	if w.files[to] && to != h.Name {
		h.Typeflag, h.Linkname, h.PAXRecords = tar.TypeLink, to, nil
		return w.write(h, nil)
	}
	of, err := w.lower(to)
	switch {
	case err != nil:
		return err
	case of == nil || of.header.Typeflag == tar.TypeDir:
		return bad(h.Name, "it is a link to %.200q, which is no file of this layer and of none below", target)
	case of.header.Typeflag == tar.TypeSymlink:
		of.header.Name = h.Name
		return w.write(of.header, nil)
	}
	defer of.data.Close()
	of.header.Name = h.Name
	return w.file(of.header, of.data)
}
