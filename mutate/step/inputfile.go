package step

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/agent"
)

// inputFile is one file of a source.
type inputFile struct {
	walker *walker
	path   string
	name   string // in the directory dir
	dir    int
	st     unix.Stat_t
	link   string   // target of a symbolic link
	first  string   // path of the file in the same tree that this is another name of
	file   *os.File // once it is open
}

func (f *inputFile) isDir() bool  { return f.st.Mode&unix.S_IFMT == unix.S_IFDIR }
func (f *inputFile) isFile() bool { return f.st.Mode&unix.S_IFMT == unix.S_IFREG }

// open opens the file if it is not open, and makes sure that it is the one that
// the walk came upon.
func (f *inputFile) open() error {
	if f.file != nil {
		return nil
	}
	fd, err := unix.Openat(f.dir, f.name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: f.path, Err: err}
	}
	f.file = os.NewFile(uintptr(fd), f.path)
	was := f.st
	if err := unix.Fstat(fd, &f.st); err != nil {
		return &os.PathError{Op: "stat", Path: f.path, Err: err}
	}
	if was.Dev != f.st.Dev || was.Ino != f.st.Ino || was.Mode&unix.S_IFMT != f.st.Mode&unix.S_IFMT {
		return fmt.Errorf("read %s: %w", f.path, ErrInputChanged)
	}
	return nil
}

func (f *inputFile) close() {
	if f.file != nil {
		f.file.Close()
	}
}

func (f *inputFile) readLink() error {
	buf := make([]byte, 4096) // PATH_MAX, and no link is longer
	n, err := unix.Readlinkat(f.dir, f.name, buf)
	if err != nil {
		return &os.PathError{Op: "readlink", Path: f.path, Err: err}
	}
	f.link = string(buf[:n])
	return nil
}

// mode is the mode that counts, and that the copy gets.
func (f *inputFile) mode() uint32 {
	m := f.st.Mode
	if f.walker.from.KeepMode {
		return m & 0o7777
	}
	// Set-user-ID lends the rights of the owner, who is somebody else in the
	// image: of a developer's file it would make one of root's. The same bit of
	// the group is on all directories of a checkout below one that has it.
	if !f.walker.from.KeepOwner && f.st.Uid != 0 {
		m &^= unix.S_ISUID
	}
	if !f.walker.from.KeepOwner && f.st.Gid != 0 {
		m &^= unix.S_ISGID
	}
	return usualMode(m)
}

// isPrivate says whether nobody but the owner may read the file, and others may
// read the copy.
func (f *inputFile) isPrivate() bool {
	return f.st.Mode&unix.S_IFMT == unix.S_IFREG && f.st.Mode&0o077 == 0 && f.mode()&0o077 != 0
}

// usualMode takes out of a mode what the umask of whoever made the checkout put
// there: what its owner may read and write becomes 0644, or 0755 if he may
// execute it, as git has it. Every other mode was given by hand, and stays:
// set-user-ID and its like, and what not even the owner may write.
func usualMode(mode uint32) uint32 {
	switch {
	case mode&unix.S_IFMT == unix.S_IFLNK:
		return 0o777
	case mode&0o7000 == 0 && mode&0o700 == 0o700:
		return 0o755
	case mode&0o7000 == 0 && mode&0o711 == 0o600:
		return 0o644
	}
	return mode & 0o7777
}

// owner is what counts of the file's owner, and what the copy gets.
func (f *inputFile) owner() (uid, gid int) {
	if f.walker.from.KeepOwner {
		return int(f.st.Uid), int(f.st.Gid)
	}
	return 0, 0
}

// header is the file as a tar entry, named by nothing yet.
func (f *inputFile) header(epoch time.Time) *tar.Header {
	h := &tar.Header{Mode: int64(f.mode()), Linkname: f.link}
	h.Uid, h.Gid = f.owner()
	switch {
	case f.isDir():
		h.Typeflag = tar.TypeDir
	case f.first != "":
		h.Typeflag = tar.TypeLink
		return h
	case f.isFile():
		h.Typeflag, h.Size = tar.TypeReg, f.st.Size
	default:
		h.Typeflag = tar.TypeSymlink
	}
	modified := time.Unix(f.st.Mtim.Unix())
	if !epoch.IsZero() && modified.After(epoch) {
		modified = epoch
	}
	agent.SetTime(h, modified)
	return h
}

// digest is the digest of all that counts of the file, with the help of the
// cache for what would have to be read.
func (f *inputFile) digest(ctx context.Context) (string, error) {
	if f.first != "" || !f.isDir() && !f.isFile() {
		return f.digestOf([sha256.Size]byte{}), nil
	}
	cache := f.walker.source.Cache
	if cache != nil {
		if sum, ok := cache.Sum(&f.st); ok {
			return f.digestOf(sum), nil
		}
	}
	reading := time.Now()
	if err := f.open(); err != nil {
		return "", err
	}
	attrs, err := xattrs(f.file)
	if err != nil {
		return "", fmt.Errorf("read attributes of %s: %w", f.path, err)
	}
	sum, err := f.read(ctx, attrs, nil, nil)
	if err != nil {
		return "", err
	}
	var after unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &after); err != nil {
		return "", &os.PathError{Op: "stat", Path: f.path, Err: err}
	}
	if cache != nil && after.Ctim == f.st.Ctim && after.Mtim == f.st.Mtim && after.Size == f.st.Size {
		cache.Store(&f.st, sum, reading)
	}
	return f.digestOf(sum), nil
}

// digestOf is the digest of a file whose bytes and attributes have that sum. It
// is made of every file of every apply, so it does without fmt.
func (f *inputFile) digestOf(sum [sha256.Size]byte) string {
	b := strconv.AppendQuote(make([]byte, 0, 512), f.path)
	number := func(n uint64, base int) { b = strconv.AppendUint(append(b, ' '), n, base) }
	number(uint64(f.st.Mode&unix.S_IFMT), 8)
	switch {
	case f.first != "":
		b = strconv.AppendQuote(append(b, " is "...), f.first)
	case !f.isFile() && !f.isDir():
		b = strconv.AppendQuote(append(b, " -> "...), f.link)
	default:
		number(uint64(f.mode()), 8)
		if f.isFile() {
			number(uint64(f.st.Size), 10)
		}
		b = hex.AppendEncode(append(b, ' '), sum[:])
	}
	if f.walker.from.KeepOwner && f.first == "" {
		number(uint64(f.st.Uid), 10)
		number(uint64(f.st.Gid), 10)
	}
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}

// send writes the file to t, and gives the digest of what was sent.
func (f *inputFile) send(ctx context.Context, t *tar.Writer, h *tar.Header) (string, error) {
	var sum [sha256.Size]byte
	if f.first == "" && (f.isDir() || f.isFile()) {
		if err := f.open(); err != nil {
			return "", err
		}
		attrs, err := xattrs(f.file)
		if err != nil {
			return "", fmt.Errorf("read attributes of %s: %w", f.path, err)
		}
		for name, value := range attrs {
			agent.SetXattr(h, name, value)
		}
		var data []agent.Range
		if f.isFile() {
			if data, err = ranges(f.file, &f.st); err != nil {
				return "", fmt.Errorf("look for holes in %s: %w", f.path, err)
			}
			if len(data) != 1 || data[0].Length != f.st.Size {
				agent.SetSparse(h, f.st.Size, data)
			}
		}
		if err := t.WriteHeader(h); err != nil {
			return "", fmt.Errorf("send %s: %w", f.path, err)
		}
		if sum, err = f.read(ctx, attrs, data, t); err != nil {
			return "", err
		}
	} else if err := t.WriteHeader(h); err != nil {
		return "", fmt.Errorf("send %s: %w", f.path, err)
	}
	return f.digestOf(sum), nil
}

// chunk is how much of a file is read at once, in bytes.
const chunk = 1 << 20

// read gives the sum of the attributes and the bytes of the file, and writes
// the bytes of the ranges data to w, if that is not nil. Holes and zeros are
// one to the sum, but only zeros take time.
func (f *inputFile) read(
	ctx context.Context, attrs map[string]string, data []agent.Range, w io.Writer,
) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		fmt.Fprintf(h, "%q=%q\n", k, attrs[k])
	}
	if f.isFile() {
		if data == nil {
			if data, err = ranges(f.file, &f.st); err != nil {
				return sum, fmt.Errorf("look for holes in %s: %w", f.path, err)
			}
		}
		if err := f.readData(ctx, h, data, w); err != nil {
			return sum, err
		}
	}
	return [sha256.Size]byte(h.Sum(nil)), nil
}

func (f *inputFile) readData(ctx context.Context, h hash.Hash, data []agent.Range, w io.Writer) error {
	size := f.st.Size
	buf := f.walker.buffer(min(size, chunk))
	for at := int64(0); at < size; at += chunk {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		b := buf[:min(chunk, size-at)]
		if len(data) == 0 || data[0].Offset >= at+chunk { // a hole
			sum := zeroSum(int64(len(b)))
			h.Write(sum[:])
			continue
		}
		if n, err := f.file.ReadAt(b, at); n < len(b) {
			if err == io.EOF {
				err = ErrInputChanged
			}
			return fmt.Errorf("read %s: %w", f.path, err)
		}
		sum := sha256.Sum256(b)
		h.Write(sum[:])
		for len(data) > 0 && data[0].Offset < at+chunk {
			from, to := max(data[0].Offset, at)-at, min(data[0].Offset+data[0].Length-at, int64(len(b)))
			if w != nil {
				if _, err := w.Write(b[from:to]); err != nil {
					return fmt.Errorf("send %s: %w", f.path, err)
				}
			}
			if data[0].Offset+data[0].Length > at+chunk {
				break // the rest of it is in the next chunk
			}
			data = data[1:]
		}
	}
	return nil
}

func (w *walker) buffer(n int64) []byte {
	if int64(len(w.buf)) < n {
		w.buf = make([]byte, max(n, 64<<10))
	}
	return w.buf[:n]
}

// hostAttrs are labels and sums of the host's own security modules, which are
// not about the file.
var hostAttrs = []string{"security.selinux", "security.ima", "security.evm"}

// xattrs reads the extended attributes that a copy carries over.
func xattrs(f *os.File) (map[string]string, error) {
	n, err := unix.Flistxattr(int(f.Fd()), nil)
	if err == unix.ENOTSUP || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 64<<10)
	if n, err = unix.Flistxattr(int(f.Fd()), buf); err != nil {
		return nil, err
	}
	attrs := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if slices.Contains(hostAttrs, name) || strings.HasPrefix(name, "trusted.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(int(f.Fd()), name, value)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", name, err)
		}
		attrs[name] = string(value[:n])
	}
	return attrs, nil
}
