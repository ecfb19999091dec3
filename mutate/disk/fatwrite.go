package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/tool"
)

// FillFAT copies all that is in the directory dir of the host into a FAT volume of the
// image, by mtools: the kernel may have no vfat. A file takes the place of one of the
// same name, of which the case of letters is no part, and directories are merged. Of
// what a file has besides its content FAT keeps the time of modification, to two
// seconds. The files in dir may come to be renamed.
//
// After an error the volume may have some of the files: the fork is good for nothing.
// A volume that has no room for them is a [syscall.ENOSPC].
func (i *Image) FillFAT(ctx context.Context, v Volume, dir string) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	tree, err := i.fat(v)
	if err != nil {
		return err
	}
	if t, ok := tree.files.(fatFS); ok && t.found.bits == 32 && t.found.clusters < leastFAT32 {
		return fault.New(fault.Image, "have it made as FAT16 (mkfs.vfat -F 16) in a copy of the image",
			"write to %s: mtools does not write to a FAT32 of so few clusters (%d)", v, t.found.clusters-2)
	}
	w := fatWriter{image: i.File, volume: v, tree: tree, dir: dir}
	if err := w.plan(".", "."); err != nil {
		return err
	}
	if w.size > v.Size {
		return w.full()
	}
	delete(i.fats, v.Slot)
	if err := w.copy(ctx); err != nil {
		return err
	}
	if tree, err = i.fat(v); err != nil {
		return err
	}
	return w.compare(tree)
}

// leastFAT32 is how many clusters a FAT32 has at least, with the first two numbers, which
// are none. Formatters make them with less, and Linux reads those.
const leastFAT32 = 65525 + 2

// fatWriter copies the files of one directory.
type fatWriter struct {
	image  *os.File
	volume Volume
	tree   *Tree // the volume as it was
	dir    string
	files  []string // in dir and in the volume, by their names there
	size   int64
}

// plan looks at a directory, which is at a place of the volume, at "" if that is still
// to be made. What the volume has under the same names has to be of the same sort,
// and keeps the case of its name.
func (w *fatWriter) plan(dir, there string) error {
	list, err := os.ReadDir(filepath.Join(w.dir, dir))
	if err != nil {
		return err
	}
	var had []fs.DirEntry
	if there != "" {
		if had, err = w.tree.ReadDir(there); err != nil {
			return err
		}
	}
	folded := map[string]string{}
	for _, e := range list {
		name := e.Name()
		if err := checkFATName(name); err != nil {
			return fault.New(fault.Recipe, "give it another name", "write %s: %w", path.Join(dir, name), err)
		}
		fold := strings.ToLower(name)
		if twin, ok := folded[fold]; ok {
			return fault.New(fault.Recipe, "", "write %s: FAT does not tell it from %s", path.Join(dir, name), twin)
		}
		folded[fold] = name
		at := ""
		if n := slices.IndexFunc(had, func(h fs.DirEntry) bool { return strings.EqualFold(h.Name(), name) }); n >= 0 {
			if name, err = w.over(dir, name, e, had[n]); err != nil {
				return err
			}
			at = path.Join(there, name)
		}
		if err := w.one(path.Join(dir, name), at, e); err != nil {
			return err
		}
	}
	return nil
}

// over gives what is to take the place of something the name that this has.
func (w *fatWriter) over(dir, name string, e, had fs.DirEntry) (string, error) {
	if had.IsDir() && !e.IsDir() {
		return "", fmt.Errorf("write %s: a directory is there, and is not replaced by a file", path.Join(dir, name))
	}
	if e.IsDir() && !had.IsDir() {
		return "", fmt.Errorf("write %s: what is there is not a directory", path.Join(dir, name))
	}
	if had.Name() == name {
		return name, nil
	}
	return had.Name(), os.Rename(filepath.Join(w.dir, dir, name), filepath.Join(w.dir, dir, had.Name()))
}

// The first and the last time that FAT can hold.
var (
	firstFATTime = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	lastFATTime  = time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC)
)

func (w *fatWriter) one(name, at string, e fs.DirEntry) error {
	file := filepath.Join(w.dir, name)
	fi, err := os.Lstat(file)
	if err != nil {
		return err
	}
	switch t := fi.ModTime(); {
	case t.Before(firstFATTime):
		err = os.Chtimes(file, firstFATTime, firstFATTime)
	case t.After(lastFATTime):
		err = os.Chtimes(file, lastFATTime, lastFATTime)
	}
	if err != nil {
		return err
	}
	if e.IsDir() {
		return w.plan(name, at)
	}
	if !e.Type().IsRegular() {
		return fmt.Errorf("write %s: FAT has files and directories only", name)
	}
	w.files = append(w.files, name)
	w.size += fi.Size()
	return nil
}

// mtoolsEnv has mtools read no configuration of the user's, and keep names and times as
// they are.
var mtoolsEnv = []string{
	"LC_ALL=C.UTF-8", "TZ=UTC", "HOME=/nonexistent", "MTOOLSRC=/dev/null", "MTOOLS_SKIP_CHECK=1", "MTOOLS_NO_VFAT=0",
	"MTOOLS_LOWER_CASE=0", "MTOOLS_FAT_COMPATIBILITY=0", "MTOOLS_NAME_NUMERIC_TAIL=1", "MTOOLS_DOTTED_DIR=0",
}

// copyTime is how long mtools may take. A gigabyte takes it some seconds.
const copyTime = 10 * time.Minute

func (w *fatWriter) copy(ctx context.Context) error {
	list, err := os.ReadDir(w.dir)
	if err != nil || len(list) == 0 {
		return err
	}
	dir, err := os.Open(w.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Paths of the host may hold what mtools takes for its own, so it gets descriptors.
	// -n and -o have it ask nothing and overwrite.
	args := []string{"-s", "-m", "-Q", "-n", "-o"}
	var names []string
	for _, e := range list {
		names = append(names, "/proc/self/fd/4/"+e.Name())
	}
	err = mtools(ctx, w.image, w.volume, "mcopy", args, append(names, "::/"), dir)
	var exit *tool.ExitError
	if errors.As(err, &exit) && (strings.Contains(exit.Report, "Disk full") || strings.Contains(exit.Report, "No directory slots")) {
		return w.full()
	}
	return err
}

// mtools runs a program of mtools on a volume.
func mtools(ctx context.Context, image *os.File, v Volume, program string, options, names []string, files ...*os.File) error {
	ctx, cancel := context.WithTimeoutCause(ctx, copyTime, fmt.Errorf("write to %s: mtools still ran after %s", v, copyTime))
	defer cancel()
	args := append(options, "-i", fmt.Sprintf("/proc/self/fd/3@@%d", v.Offset))
	_, err := tool.Run(ctx, tool.Call{
		Program: program, Args: append(args, names...), What: fmt.Sprintf("write to %s", v), Env: mtoolsEnv,
		Files: append([]*os.File{image}, files...),
	})
	return err
}

// removeFAT removes files of a FAT volume, and directories that have become empty then:
// each comes after what is in it.
func (i *Image) removeFAT(ctx context.Context, v Volume, names []string) error {
	if len(names) == 0 {
		return nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	tree, err := i.fat(v)
	if err != nil {
		return err
	}
	delete(i.fats, v.Slot)
	for _, name := range names {
		// What mtools takes for a pattern could be more than this.
		if strings.ContainsAny(name, `[]\*?`) {
			return fmt.Errorf("remove %s: mtools cannot remove a file of such a name", name)
		}
		fi, err := tree.Stat(name)
		if err != nil {
			return err
		}
		program := "mdel"
		if fi.IsDir() {
			program = "mrd"
		}
		if err := mtools(ctx, i.File, v, program, nil, []string{"::/" + name}); err != nil {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}

func (w *fatWriter) full() error {
	return fmt.Errorf("write to %s: it has no room for %d KiB in %d files: %w", w.volume, (w.size+1023)>>10, len(w.files), syscall.ENOSPC)
}

// compare reads what was written, with other eyes: mtools may skip a file and say
// that all went well.
func (w *fatWriter) compare(tree *Tree) error {
	for _, name := range w.files {
		same, err := w.same(tree, name)
		if err != nil {
			return fmt.Errorf("read what was written to %s: %w", w.volume, err)
		}
		if !same {
			return fmt.Errorf("write %s to %s: mtools wrote something else", name, w.volume)
		}
	}
	return nil
}

func (w *fatWriter) same(tree *Tree, name string) (bool, error) {
	want, err := os.Open(filepath.Join(w.dir, name))
	if err != nil {
		return false, err
	}
	defer want.Close()
	found, _, err := findFAT(tree, name)
	if errors.Is(err, fs.ErrNotExist) { // a short name of letters that are in no ASCII, perhaps
		return false, nil
	}
	if err != nil || found != name {
		return false, err
	}
	got, err := tree.Open(name)
	if err != nil {
		return false, err
	}
	defer got.Close()
	const piece = 4 << 20 // for each the library goes through all of the file's chain
	for a, b := make([]byte, piece), make([]byte, piece); ; {
		n, errA := io.ReadFull(want, a)
		m, errB := io.ReadFull(got, b)
		switch {
		case n != m || !bytes.Equal(a[:n], b[:m]):
			return false, nil
		case errA == io.EOF || errA == io.ErrUnexpectedEOF:
			return true, nil
		case errA != nil || errB != nil:
			return false, errors.Join(errA, errB)
		}
	}
}

// maxFATName is how long a name may be, in units of UTF-16.
const maxFATName = 255

// checkFATName says what keeps a name from being one of a FAT volume, or mtools from
// writing it.
func checkFATName(name string) error {
	base, _, _ := strings.Cut(name, ".")
	switch {
	case !utf8.ValidString(name):
		return fmt.Errorf("FAT cannot have a name that is not in UTF-8")
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f || strings.ContainsRune(`"*/:<>?\|`, r) }):
		return fmt.Errorf(`FAT cannot have a name with one of "*/:<>?\| or a control character in it`)
	case strings.HasSuffix(name, ".") || strings.HasSuffix(name, " "):
		return fmt.Errorf("FAT cannot have a name that ends in a dot or a space")
	case strings.ContainsFunc(name, func(r rune) bool { return r > 0xffff }):
		return fmt.Errorf("mtools cannot write a name with characters beyond Unicode's first 65,536")
	case len(utf16.Encode([]rune(name))) > maxFATName:
		return fmt.Errorf("FAT cannot have a name of more than %d characters", maxFATName)
	case slices.Contains(devices, strings.ToUpper(base)):
		return fmt.Errorf("mtools does not write a file of that name, which is a device to DOS")
	}
	return nil
}

// devices are no names for files in DOS, with no ending.
var devices = []string{
	"CON", "PRN", "AUX", "NUL", "CLOCK$",
	"COM1", "COM2", "COM3", "COM4", "COM5", "COM6", "COM7", "COM8", "COM9",
	"LPT1", "LPT2", "LPT3", "LPT4", "LPT5", "LPT6", "LPT7", "LPT8", "LPT9",
}
