package deliver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// File is a file of the user's that gets a raw copy of the image.
type File struct {
	Source
	Path string // as the user names it
	// Spared are files that must not be overwritten, by what they are: "the
	// recipe" to its path.
	Spared map[string]string
}

// Check implements [Target].
func (f File) Check(context.Context, string) error {
	output := f.Path
	refuse := func(format string, args ...any) error {
		return fault.New(fault.Usage, "", "output %s: %s", output, fmt.Sprintf(format, args...))
	}
	if output == "-" {
		mend := "name a file, or ./- for one of that name"
		return fault.New(fault.Usage, mend, "output -: an image is not written to standard output")
	}
	if err := checkFormat(output); err != nil {
		return err
	}
	dir := filepath.Dir(output)
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return refuse("there is no directory %s", dir)
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return placeError(output, err)
	}
	target, err := resolveOutput(output)
	if err != nil {
		return err
	}
	if strings.HasPrefix(target, f.Store.Dir()+"/") {
		return refuse("it is in the store")
	}
	fi, err := os.Stat(output)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return refuse("it is there, and no regular file")
	}
	for what, file := range f.Spared {
		if used, err := os.Stat(file); err == nil && os.SameFile(fi, used) {
			return refuse("it is %s", what)
		}
	}
	return nil
}

// otherFormats are what files of these endings hold, which is no raw image, and
// how a raw one becomes that.
var otherFormats = map[string]string{
	".qcow2": "qemu-img convert -O qcow2", ".qcow": "qemu-img convert -O qcow",
	".vmdk": "qemu-img convert -O vmdk", ".vdi": "qemu-img convert -O vdi", ".qed": "qemu-img convert -O qed",
	".vhdx": "qemu-img convert -O vhdx", ".vhd": "qemu-img convert -O vpc", ".vpc": "qemu-img convert -O vpc",
	".gz": "gzip", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bzip2", ".lz4": "lz4",
	".tar": "tar", ".tgz": "tar", ".zip": "zip", ".ova": "", ".iso": "",
}

// checkFormat refuses an output whose name promises another format than raw:
// whatever reads it later would believe the name.
func checkFormat(output string) error {
	ext := strings.ToLower(filepath.Ext(output))
	program, other := otherFormats[ext]
	if !other {
		return nil
	}
	stem := strings.TrimSuffix(output, filepath.Ext(output))
	raw := strings.TrimSuffix(strings.TrimSuffix(stem, ".raw"), ".img") + ".raw"
	mend := "write " + raw
	switch {
	case strings.HasPrefix(program, "qemu-img"):
		mend += fmt.Sprintf(", then: %s %s %s", program, raw, output)
	case program != "":
		mend += ", and pack that with " + program
	}
	return fault.New(fault.Usage, mend, "output %s: imgmut writes raw images, and that is the name of another format",
		output)
}

// resolveOutput is where an output goes: to where a link leads.
func resolveOutput(output string) (string, error) {
	output, err := filepath.Abs(output)
	if err != nil {
		return "", err
	}
	if err := checkLinks(output); err != nil {
		return "", err
	}
	if real, err := filepath.EvalSymlinks(output); err == nil {
		return real, nil
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(output))
	return filepath.Join(dir, filepath.Base(output)), err
}

// checkLinks refuses to follow what the kernel refuses to follow where
// fs.protected_symlinks is set: a link that another user has put into a sticky
// directory that everybody can write, such as /tmp. It could lead root to
// overwrite any file. It also refuses what stands for an open file of a process, as
// /dev/stdout does: that may be a file, and what else goes there would be lost.
func checkLinks(path string) error {
	for range 40 { // as many as the kernel follows
		if in, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil && strings.HasPrefix(in, "/proc/") {
			return fault.New(fault.Usage, "name a file", "output %s: it is no file, but stands for an open one", path)
		}
		fi, err := os.Lstat(path)
		if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
			return nil // whatever else is wrong with it shows when it is used
		}
		dir, err := os.Stat(filepath.Dir(path))
		if err != nil {
			return nil
		}
		const trap = fs.ModeSticky | 0o002
		owner, dirOwner := fi.Sys().(*syscall.Stat_t).Uid, dir.Sys().(*syscall.Stat_t).Uid
		if dir.Mode()&trap == trap && owner != uint32(os.Geteuid()) && owner != dirOwner {
			return fault.New(fault.Usage, "remove the link, or choose another place",
				"output %s: it is another user's link in a directory that everybody can write", path)
		}
		to, err := os.Readlink(path)
		if err != nil {
			return nil
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return nil
}

// Has implements [Target]. It is always false: the file is the user's, and
// nothing is recorded of it.
func (f File) Has(*record.Image) bool { return false }

// Put implements [Target]: by reflink on the store's filesystem, else by a sparse
// copy. What is there already keeps its owner and mode, and stays where a link
// leads to.
func (f File) Put(ctx context.Context, i *record.Image) (string, error) {
	output, err := filepath.Abs(f.Path)
	if err != nil {
		return "", err
	}
	target, err := resolveOutput(output)
	if err != nil {
		return "", err
	}
	f.Phase("write " + output)
	return output, f.place(ctx, i.Name, target, hidden, func(out, in *os.File) error {
		err := reflink.Clone(out, in)
		if errors.Is(err, reflink.ErrUnsupported) {
			err = reflink.Copy(ctx, out, in, f.Progress("copy"))
		}
		if fi, statErr := os.Stat(target); err == nil && statErr == nil {
			st := fi.Sys().(*syscall.Stat_t)
			err = errors.Join(out.Chown(int(st.Uid), int(st.Gid)), out.Chmod(fi.Mode().Perm()))
		}
		return err
	}, nil)
}

// Take implements [Target]: the file is the user's own.
func (f File) Take(context.Context, *record.Image) error { return nil }
