package etc

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// MountInputs sums up what [Mounts] reads, without reading it: names, sizes, times and
// inodes of fstab, of the directories of units and of what is in them, their
// drop-ins and links too. As long as the sum is the same, so is what Mounts says.
//
// What it misses: a file that a link in those directories leads to outside of
// them and that is written in place; links in the paths of mount points and what
// conditions ask for; and, in a tree that does not tell inodes and times of change,
// a file that is written with its size and time kept.
func MountInputs(tree fs.FS) (digest string, err error) {
	in := inputs{newFiles(tree), sha256.New()}
	fstab, err := in.files.follow("etc/fstab")
	if err := skipAbsent(err); err != nil {
		return "", err
	}
	if fstab != "" {
		in.add(fstab)
	}
	dirs, err := realUnitDirs(in.files)
	if err != nil {
		return "", err
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if err := in.addDir(dir, true); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(in.sum.Sum(nil)), nil
}

// Digest sums up what is known of names in a tree without reading them: of a directory
// whose name ends in a slash, what is in it too. What is missing counts as well.
func Digest(tree fs.FS, names ...string) (string, error) {
	in := inputs{newFiles(tree), sha256.New()}
	for _, name := range names {
		if dir, ok := strings.CutSuffix(name, "/"); !ok {
			in.add(name)
		} else if err := in.addDir(dir, false); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(in.sum.Sum(nil)), nil
}

type inputs struct {
	files *files
	sum   hash.Hash
}

// addDir adds a directory, what is in it and, once, the directories of units in it.
func (in inputs) addDir(dir string, deeper bool) error {
	f, err := openDir(in.files.tree, dir)
	if err != nil {
		return skipAbsent(err)
	}
	defer f.Close()
	entries, err := readOpenDir(f, dir, maxEntries)
	if err != nil {
		return skipAbsent(err)
	}
	in.add(dir)
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		switch at, ok := f.(*os.File); {
		case !e.IsDir() && ok:
			in.addAt(at, e.Name())
		case !e.IsDir():
			in.add(name)
		case deeper && isFolder(e.Name()):
			if err := in.addDir(name, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// add adds what is known of one name.
func (in inputs) add(name string) {
	fi, err := fs.Lstat(in.files.tree, name)
	if err != nil {
		fmt.Fprintf(in.sum, "%q none\n", name)
		return
	}
	fmt.Fprintf(in.sum, "%q %d %d %d", name, fi.Mode(), fi.Size(), fi.ModTime().UnixNano())
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		fmt.Fprintf(in.sum, " %d %d", st.Ino, st.Ctim.Nano())
	}
	in.sum.Write([]byte("\n"))
}

// addAt is add for a name in an open directory: one system call instead of four.
func (in inputs) addAt(dir *os.File, name string) {
	var st unix.Stat_t
	err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	b := fmt.Appendf(nil, "%q %t", name, err == nil)
	for _, n := range []int64{int64(st.Mode), st.Size, st.Mtim.Nano(), int64(st.Ino), st.Ctim.Nano()} {
		b = strconv.AppendInt(append(b, ' '), n, 10)
	}
	in.sum.Write(append(b, '\n'))
}
