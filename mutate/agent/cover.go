package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// covering are files of the image that have other content while a command
// runs. The content is in the files themselves, not mounted over them: so a
// command can write, replace or remove them as on the real system, and what it
// did stays. What it left alone gets back what it had, by whatever name it has
// become known: what the cover says is the machine's and not the image's.
//
// A crash in between leaves no trace: a layer is made only when a step has
// ended well, and the fork is thrown away otherwise.
type covering struct{ files []covered }

// covered is one of them.
type covered struct {
	path   string // with all links resolved
	cover  Cover
	file   *os.File    // for reading: open for writing, it could not be executed
	after  unix.Stat_t // of the file with the cover's content
	before *original   // nil if there was no file
	made   []string    // directories that were missing, outermost first
	parent times       // of the directory that got the file
	// awaited says that there is no program yet that reads it.
	awaited bool
}

// original is what a file was.
type original struct {
	content []byte
	mode    uint32
	times   times
	caps    []byte // its capabilities, which a write removes
}

// times are those of last access and change of content.
type times struct{ atime, mtime unix.Timespec }

func timesOf(st *unix.Stat_t) times { return times{st.Atim, st.Mtim} }

// set sets those of path, or of what dir is if path is empty.
func (t times) set(dir int, path string) error {
	const flags = unix.AT_SYMLINK_NOFOLLOW | unix.AT_EMPTY_PATH
	return unix.UtimesNanoAt(dir, path, []unix.Timespec{t.atime, t.mtime}, flags)
}

// maxCovered bounds a file of the image that is covered, in bytes.
const maxCovered = 1 << 20

// cover gives a file the cover's content for a job. One that is on a fresh
// filesystem, as behind the usual link from /etc/resolv.conf into /run, is made
// there by the job's init: the image has no part in it. A file that is immutable
// cannot be written, but no command can replace it either: there the cover is
// mounted over it.
func (f *covering) cover(c Cover, j *job) error {
	path, err := resolve(c.Path)
	if err != nil {
		return err
	}
	c.Path = path
	if inFresh(path) {
		j.Files = append(j.Files, c)
		return nil
	}
	d := covered{path: path, cover: c, awaited: c.Reader != "" && !exists(c.Reader)}
	if err = checkLastingDir(existing(filepath.Dir(path))); err == nil {
		err = d.put()
	}
	if d.awaited && (errors.Is(err, unix.EROFS) || errors.Is(err, unix.ENOTDIR)) {
		return nil
	}
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EROFS) {
		if _, err := os.Lstat(path); err == nil {
			d.file.Close()
			j.Binds = append(j.Binds, c)
			return nil
		}
	}
	f.files = append(f.files, d)
	return err
}

func checkLastingDir(dir string) error {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	return checkLasting(fd, dir)
}

func exists(name string) bool {
	_, err := os.Stat(name)
	return err == nil
}

// existing gives the innermost directory of a path that there is.
func existing(dir string) string {
	for dir != "/" {
		if exists(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// put puts the cover's content in place.
func (d *covered) put() error {
	var st unix.Stat_t
	err := unix.Lstat(d.path, &st)
	switch {
	case err == unix.ENOENT:
		err = d.create()
	case err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = errors.New("not a regular file")
	case err == nil:
		err = d.overwrite(&st)
	}
	if err != nil {
		return err
	}
	return unix.Fstat(int(d.file.Fd()), &d.after)
}

func (d *covered) create() error {
	dir := filepath.Dir(d.path)
	var st unix.Stat_t
	if err := unix.Stat(existing(dir), &st); err != nil {
		return err
	}
	d.parent = timesOf(&st)
	var err error
	if d.made, err = makeParents(dir, 0o755); err != nil {
		return err
	}
	if err := write(d.path, d.cover); err != nil {
		return err
	}
	d.file, err = os.Open(d.path)
	return err
}

func (d *covered) overwrite(st *unix.Stat_t) error {
	f, err := openRegular(d.path, maxCovered)
	if err != nil {
		return err
	}
	d.file = f.file
	content, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	was := original{content: content, mode: st.Mode & 0o7777, times: timesOf(st)}
	caps := make([]byte, 64)
	if n, err := unix.Fgetxattr(int(d.file.Fd()), "security.capability", caps); err == nil {
		was.caps = caps[:n]
	}
	if err := d.write([]byte(d.cover.Content)); err != nil {
		return err
	}
	d.before = &was
	return d.file.Chmod(fs.FileMode(d.cover.Mode))
}

// write changes the content of the file and nothing else of it, wherever it is.
func (d *covered) write(content []byte) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", d.file.Fd()), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// restore gives back to each file what the command left alone.
func (f *covering) restore() error {
	var errs []error
	for _, d := range slices.Backward(f.files) {
		if err := d.restore(); err != nil {
			errs = append(errs, fmt.Errorf("uncover %s: %w", d.path, err))
		}
	}
	return errors.Join(errs...)
}

func (d *covered) restore() error {
	if d.file == nil {
		return nil
	}
	defer d.file.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(d.file.Fd()), &st); err != nil {
		return err
	}
	if st.Nlink == 0 {
		return nil // the command removed it, or put another in its place
	}
	content, err := io.ReadAll(io.NewSectionReader(d.file, 0, int64(len(d.cover.Content))+1))
	if err != nil || string(content) != d.cover.Content {
		return nil // or wrote to it
	}
	if d.before == nil {
		return d.remove(&st)
	}
	if err := d.write(d.before.content); err != nil {
		return err
	}
	if d.before.caps != nil && st.Uid == d.after.Uid {
		if err := unix.Fsetxattr(int(d.file.Fd()), "security.capability", d.before.caps, 0); err != nil {
			return err
		}
	}
	if st.Mode == d.after.Mode {
		if err := unix.Fchmod(int(d.file.Fd()), d.before.mode); err != nil {
			return err
		}
	}
	return d.before.times.set(int(d.file.Fd()), "")
}

// remove removes a file that the image did not have, and the directories that
// were made for it. One that the command moved, or gave another name or other
// permissions, is the command's, and stays without the content.
func (d *covered) remove(st *unix.Stat_t) error {
	var at unix.Stat_t
	err := unix.Lstat(d.path, &at)
	if err != nil || at.Dev != st.Dev || at.Ino != st.Ino ||
		st.Mode != d.after.Mode || st.Nlink != 1 || st.Uid != d.after.Uid || st.Gid != d.after.Gid {
		return d.write(nil)
	}
	var dir unix.Stat_t
	parent := filepath.Dir(d.path)
	if err := unix.Lstat(parent, &dir); err != nil {
		return err
	}
	if err := os.Remove(d.path); err != nil {
		return err
	}
	if d.awaited && exists(d.cover.Reader) {
		return nil
	}
	for _, made := range slices.Backward(d.made) {
		err := unix.Rmdir(made)
		if err == unix.ENOTEMPTY || err == unix.EEXIST || err == unix.ENOTDIR || err == unix.ENOENT {
			return nil // the command put something else there
		}
		if err != nil {
			return err
		}
		parent = filepath.Dir(made)
	}
	if len(d.made) == 0 && later(dir.Mtim, d.after.Mtim) {
		return nil // the command changed the directory after us
	}
	return d.parent.set(unix.AT_FDCWD, parent)
}

// clockGrain is how far the time of a directory may be from that of a file in it
// which was made at the same moment.
const clockGrain = 20 * time.Millisecond

func later(a, b unix.Timespec) bool {
	return time.Duration(a.Nano()-b.Nano()) > clockGrain
}

// resolve follows all symbolic links of a path, also where the last of them
// points at nothing. It gives up on a circle as the kernel does (ELOOP).
func resolve(path string) (string, error) {
	for range 40 {
		if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			path = filepath.Join(dir, filepath.Base(path))
		}
		link, err := os.Readlink(path)
		if err != nil {
			return path, nil
		}
		if !filepath.IsAbs(link) {
			link = filepath.Join(filepath.Dir(path), link)
		}
		path = link
	}
	return "", unix.ELOOP
}

// makeParents is os.MkdirAll that tells what it made, outermost first.
func makeParents(dir string, mode fs.FileMode) (made []string, err error) {
	if _, err := os.Stat(dir); err == nil {
		return nil, nil
	}
	if made, err = makeParents(filepath.Dir(dir), mode); err != nil {
		return made, err
	}
	if err := os.Mkdir(dir, mode); err != nil {
		return made, err
	}
	return append(made, dir), nil
}
