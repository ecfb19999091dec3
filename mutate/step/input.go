package step

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/record"
)

// Source is the directory of a recipe. Nothing outside it is read, whatever
// its symbolic links say ([os.Root]).
type Source struct {
	Root *os.Root
	// Want, if not nil, holds the digests that the key was made from: a file
	// that has changed since is an error, or the layer would not be what its
	// key says.
	Want map[string]string
}

// ErrInputChanged says that a file beside the recipe changed during the build.
var ErrInputChanged = errors.New("changed while the image was being built")

// ErrNotAFile says that something beside the recipe cannot be copied: a socket,
// a device, a pipe.
var ErrNotAFile = errors.New("neither a file, a directory nor a symbolic link")

// Digest lists the files below each of names with their digests, in order.
func (s *Source) Digest(ctx context.Context, names []string) ([]record.Input, error) {
	var inputs []record.Input
	for _, name := range names {
		err := s.walk(name, func(f *inputFile) error {
			h := sha256.New()
			if err := f.digest(ctx, h, io.Discard); err != nil {
				return err
			}
			inputs = append(inputs, record.Input{Path: f.path, Digest: hex.EncodeToString(h.Sum(nil))})
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return inputs, nil
}

// inputFile is one file of a source, open unless it is a symbolic link.
type inputFile struct {
	src    *Source
	path   string
	fi     fs.FileInfo
	link   string
	xattrs map[string]string
	file   *os.File
}

// walk calls visit for name and all below it, directories first, sorted.
func (s *Source) walk(name string, visit func(*inputFile) error) error {
	fi, err := s.Root.Lstat(name)
	if err != nil {
		return err
	}
	f := &inputFile{src: s, path: name, fi: fi}
	if err := f.open(); err != nil {
		return err
	}
	if f.file != nil {
		defer f.file.Close()
	}
	if err := visit(f); err != nil {
		return err
	}
	if !fi.IsDir() {
		return nil
	}
	entries, err := f.file.ReadDir(-1)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if err := s.walk(path.Join(name, e.Name()), visit); err != nil {
			return err
		}
	}
	return nil
}

func (f *inputFile) open() (err error) {
	switch f.fi.Mode().Type() {
	case fs.ModeSymlink:
		f.link, err = f.src.Root.Readlink(f.path)
		return err
	case 0, fs.ModeDir:
	default:
		return fmt.Errorf("read %s: %w", f.path, ErrNotAFile)
	}
	if f.file, err = f.src.Root.Open(f.path); err != nil {
		return err
	}
	if f.xattrs, err = xattrs(f.file); err != nil {
		f.file.Close()
		return fmt.Errorf("read attributes of %s: %w", f.path, err)
	}
	return nil
}

// digest writes all that counts of the file to h, and its bytes to w as well.
func (f *inputFile) digest(ctx context.Context, h hash.Hash, w io.Writer) error {
	hdr := f.header()
	fmt.Fprintf(h, "%q %c %o %d:%d %d %q\n", f.path, hdr.Typeflag, hdr.Mode, hdr.Uid, hdr.Gid, hdr.Size, hdr.Linkname)
	for _, k := range slices.Sorted(maps.Keys(f.xattrs)) {
		fmt.Fprintf(h, "%q=%q\n", k, f.xattrs[k])
	}
	if hdr.Typeflag != tar.TypeReg {
		return nil
	}
	n, err := io.Copy(io.MultiWriter(h, w), io.LimitReader(content.Reader(ctx, f.file), hdr.Size))
	if err == nil && n != hdr.Size {
		err = fmt.Errorf("read %s: %w", f.path, ErrInputChanged)
	}
	return err
}

// header is the file as a tar entry, named by nothing yet.
func (f *inputFile) header() *tar.Header {
	h := &tar.Header{Mode: int64(unixMode(f.fi)), ModTime: f.fi.ModTime(), Linkname: f.link, PAXRecords: map[string]string{}}
	if st, ok := f.fi.Sys().(*syscall.Stat_t); ok {
		h.Uid, h.Gid = int(st.Uid), int(st.Gid)
	}
	switch f.fi.Mode().Type() {
	case fs.ModeDir:
		h.Typeflag = tar.TypeDir
	case fs.ModeSymlink:
		h.Typeflag = tar.TypeSymlink
	default:
		h.Typeflag, h.Size = tar.TypeReg, f.fi.Size()
	}
	for k, v := range f.xattrs {
		h.PAXRecords[agent.XattrRecord+k] = v
	}
	return h
}

// send writes the file to t under the header's name, and checks on the way
// that it is the file the key was made from.
func (f *inputFile) send(ctx context.Context, t *tar.Writer, h *tar.Header) error {
	if err := t.WriteHeader(h); err != nil {
		return fmt.Errorf("send %s: %w", f.path, err)
	}
	sum := sha256.New()
	if err := f.digest(ctx, sum, t); err != nil {
		return err
	}
	if want, ok := f.src.Want[f.path]; f.src.Want != nil && (!ok || want != hex.EncodeToString(sum.Sum(nil))) {
		return fmt.Errorf("read %s: %w", f.path, ErrInputChanged)
	}
	return nil
}

// missing is an error if a file that the key was made from, at or below name,
// is not among those sent.
func (s *Source) missing(name string, sent map[string]bool) error {
	for _, want := range slices.Sorted(maps.Keys(s.Want)) {
		if (name == "." || want == name || strings.HasPrefix(want, name+"/")) && !sent[want] {
			return fmt.Errorf("read %s: %w", want, ErrInputChanged)
		}
	}
	return nil
}

// setOwner asks for an owner as the recipe says it; only the guest knows its own
// users.
func setOwner(h *tar.Header, owner string) {
	if owner == "" {
		return
	}
	if h.PAXRecords == nil {
		h.PAXRecords = map[string]string{}
	}
	h.PAXRecords[agent.OwnerRecord] = owner
}

func unixMode(fi fs.FileInfo) uint32 {
	m := uint32(fi.Mode().Perm())
	for bit, set := range map[fs.FileMode]uint32{fs.ModeSetuid: unix.S_ISUID, fs.ModeSetgid: unix.S_ISGID, fs.ModeSticky: unix.S_ISVTX} {
		if fi.Mode()&bit != 0 {
			m |= set
		}
	}
	return m
}

// xattrs reads the extended attributes that a copy carries over. Labels and
// ACL masks of the host's own security module are not about the file.
func xattrs(f *os.File) (map[string]string, error) {
	buf := make([]byte, 64<<10)
	n, err := unix.Flistxattr(int(f.Fd()), buf)
	if err == unix.ENOTSUP || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	attrs := map[string]string{}
	for name := range strings.SplitSeq(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		if name == "security.selinux" || name == "security.ima" || name == "security.evm" || strings.HasPrefix(name, "trusted.") {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Fgetxattr(int(f.Fd()), name, value)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strconv.Quote(name), err)
		}
		attrs[name] = string(value[:n])
	}
	return attrs, nil
}
