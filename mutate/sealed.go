package mutate

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"syscall"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/guest"
)

// A guest on a kernel without vfat finds nothing below the ESP, and cannot write there
// (see package disk). What is said by its path, as a file of a write step or of an
// assertion, goes past the guest to the FAT volume. What commands do cannot.

// sealed are the places of a guest's image that the guest cannot see. A nil one has
// none.
type sealed struct {
	image  *disk.Image
	system *disk.Tree // the guest's files
}

// sealedIn gives those of a guest, nil if there are none.
func sealedIn(image *disk.Image, g *guest.Guest) *sealed {
	if len(image.Sealed()) == 0 {
		return nil
	}
	return &sealed{image, disk.TreeAt(g.Root())}
}

// find tells where in a volume a path leads that the guest cannot go.
func (s *sealed) find(name string, follow bool) (disk.SealedPath, bool) {
	if s == nil {
		return disk.SealedPath{}, false
	}
	return s.image.SealedPath(s.system, path.Clean(name), follow)
}

// readFile reads a file if it is in such a volume.
func (s *sealed) readFile(name string) (b []byte, found bool, err error) {
	p, ok := s.find(name, true)
	if !ok {
		return nil, false, nil
	}
	b, err = s.image.ReadFAT(p.Volume, p.Name)
	return b, true, refused(err)
}

// stat describes a file if it is in such a volume, as the system will see it.
func (s *sealed) stat(name string) (st *agent.Stat, found bool, err error) {
	p, ok := s.find(name, false)
	if !ok {
		return nil, false, nil
	}
	fi, err := s.image.StatFAT(p.Volume, p.Name)
	if err != nil {
		return nil, true, refused(err)
	}
	st = &agent.Stat{UID: -1, GID: -1, Mode: fatMode(p.Mount.Options, fi == nil || fi.IsDir())}
	if fi == nil || fi.IsDir() {
		st.Type = fs.ModeDir
	} else {
		st.Size = fi.Size()
	}
	return st, true, nil
}

// refused is an error about a file as the agent would give it.
func refused(err error) error {
	if err == nil {
		return nil
	}
	e := &agent.GuestError{Text: err.Error()}
	if errors.Is(err, fs.ErrNotExist) {
		e.Errno = syscall.ENOENT
	}
	return e
}

// fatMode is the mode that all files, or all directories, of a FAT volume have when it
// is mounted (mount(8)). The mask is systemd's own if no option says it.
func fatMode(options []string, dir bool) uint32 {
	mask := uint64(0o022)
	own := map[bool]string{true: "dmask", false: "fmask"}[dir]
	for _, name := range []string{"umask", own} {
		for _, o := range options {
			if value, ok := strings.CutPrefix(o, name+"="); ok {
				if m, err := strconv.ParseUint(value, 8, 12); err == nil {
					mask = m
				}
			}
		}
	}
	return uint32(0o777 &^ mask)
}

// mentioned gives the place that a command says by its path, "" if it says none.
func (s *sealed) mentioned(c agent.Command) string {
	if s == nil {
		return ""
	}
	said := c.Script + "\n" + strings.Join(c.Argv, "\n")
	for _, m := range s.image.Sealed() {
		if strings.Contains(said, m.Mountpoint) {
			return m.Mountpoint
		}
	}
	return ""
}

// askedGuest is the guest in which assertions are checked.
type askedGuest struct {
	*guest.Guest
	sealed *sealed
}

// Exec implements [verify.Guest]. A command about files that it cannot see would be
// answered wrongly.
func (a askedGuest) Exec(ctx context.Context, c agent.Command, network bool, out func([]byte)) error {
	if at := a.sealed.mentioned(c); at != "" {
		return &agent.GuestError{Text: "it cannot be known here: the kernel of this machine has no vfat, so that commands see nothing below " +
			at + " (assertions of the kinds file and absent do)"}
	}
	return a.Guest.Exec(ctx, c, network, out)
}

// ReadFile implements [verify.Guest].
func (a askedGuest) ReadFile(ctx context.Context, name string) ([]byte, error) {
	if b, ok, err := a.sealed.readFile(name); ok {
		return b, err
	}
	return a.Guest.ReadFile(ctx, name)
}

// Stat implements [verify.Guest].
func (a askedGuest) Stat(ctx context.Context, name string) (*agent.Stat, error) {
	if st, ok, err := a.sealed.stat(name); ok {
		return st, err
	}
	return a.Guest.Stat(ctx, name)
}
