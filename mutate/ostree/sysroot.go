package ostree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/tool"
)

// Options say what a [Sysroot] is made of. All mounts are detached, and of the machine's
// own users, and nothing in them may be executed ([mount.Request] without Programs). They
// belong to the sysroot from then on, but are the caller's to close.
type Options struct {
	Root *os.File // of the volume with the repository
	Boot *os.File // of the volume on its /boot, nil if that is a directory of it
	// Directories are others that ostree works on, at /NAME: see [mount.Directory].
	Directories map[string]*os.File
}

// Sysroot is a volume with deployments that the machine's ostree works on. Paths of its
// methods are relative to the volume: "ostree/imgmut/t".
type Sysroot struct {
	// Root is the root directory of the volume, an O_PATH descriptor.
	Root    *os.File
	volumes []*os.File
	room    *mount.Room
}

// at is where the volume is in the room.
const at = "/sysroot"

// through starts ostree in namespaces of its own: of processes, because it needs a /proc,
// and that of the machine has links to all of the machine; of networks, because it needs
// none.
var through = []string{"/usr/bin/unshare", "--fork", "--kill-child", "--pid", "--mount-proc", "--net", "--ipc", "/usr/bin/ostree"}

const what = "change a deployment of ostree"

// Need is an error of class [fault.Host] if the machine lacks what it takes to change
// deployments.
func Need() error {
	for _, program := range []string{"ostree", "unshare"} {
		if err := tool.Need(program, what); err != nil {
			return err
		}
	}
	if !mount.KernelHas("overlay") {
		return fault.New(fault.Host, "modprobe overlay", "%s: this kernel has no overlay", what)
	}
	return nil
}

// Open makes a sysroot. It is an error of class [fault.Host] if the machine has no
// ostree, and of class [fault.Image] if the repository is not one of deployments.
func Open(o Options) (*Sysroot, error) {
	if err := Need(); err != nil {
		return nil, err
	}
	programs := map[string]string{}
	for name, program := range map[string]string{"ostree": "ostree", "unshare": "unshare", "bwrap": "true"} {
		file, err := exec.LookPath(program)
		if err == nil {
			file, err = filepath.EvalSymlinks(file)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		programs[name] = file
	}
	config, err := readFile(o.Root, path.Join(repository, "config"))
	if err != nil {
		return nil, fault.New(fault.Image, mendDamaged, "%s: %w", what, err)
	}
	harmless, err := harmlessConfig(config)
	if err != nil {
		return nil, err
	}
	places := []mount.Place{{At: at, Mount: o.Root}}
	if o.Boot != nil {
		places = append(places, mount.Place{At: at + "/boot", Mount: o.Boot})
	}
	for name, dir := range o.Directories {
		places = append(places, mount.Place{At: "/" + name, Mount: dir})
	}
	room, err := mount.NewRoom(mount.RoomOptions{
		Programs: programs, Places: places, Covers: map[string]string{path.Join(at, repository, "config"): harmless},
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	s := &Sysroot{Root: o.Root, volumes: []*os.File{o.Root}, room: room}
	if o.Boot != nil {
		s.volumes = append(s.volumes, o.Boot)
	}
	return s, nil
}

// Sync makes all that was written be on the volumes.
func (s *Sysroot) Sync() error {
	for _, v := range s.volumes {
		dir, err := openat(v, ".", unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		err = unix.Syncfs(int(dir.Fd()))
		dir.Close()
		if err != nil {
			return fmt.Errorf("write out a deployment: %w", err)
		}
	}
	return nil
}

// Close lets go of the volume.
func (s *Sysroot) Close() error { return s.room.Close() }

// maxConfig is how long a repository's configuration may be, in bytes.
const maxConfig = 64 << 10

// harmlessConfig is what ostree sees of a repository's configuration. All else could name
// another repository, or a program.
func harmlessConfig(text string) (string, error) {
	keys := parseKeys(text)
	if mode := keys["core.mode"]; mode != "bare" {
		return "", fault.New(fault.Image, "", "the image's repository has the mode %q: want bare, as those of systems have", mode)
	}
	// It is not written to the disk file by file: the fork is, as a whole, when it is finished.
	config := "[core]\nrepo_version=1\nmode=bare\nfsync=false\n[sysroot]\nbootloader=none\n"
	if keys["sysroot.bootprefix"] == "true" { // whether entries name kernels from / or from /boot on
		config += "bootprefix=true\n"
	}
	return config, nil
}

// Run runs ostree with arguments that name what they are about by paths in the room: the
// volume is on /sysroot. what is what it is wanted for, for errors. Standard input is
// empty if stdin is nil.
func (s *Sysroot) Run(ctx context.Context, what string, stdin io.Reader, args ...string) (out string, err error) {
	err = s.room.Enter(func() error {
		said, err := tool.Run(ctx, tool.Call{
			Program: "ostree", Through: through, Args: args, What: what, Stdin: stdin,
			Env: []string{"HOME=/tmp", "TMPDIR=/tmp", "PATH=/usr/bin", "OSTREE_REPO=", "OSTREE_SYSROOT=" + at, "GIO_USE_VFS=local"},
		})
		out = strings.TrimSpace(string(said))
		return err
	})
	return out, s.explain(err)
}

// explain makes an error of ostree one of the image: what it works on is all that can be
// wrong.
func (s *Sysroot) explain(err error) error {
	var exit *tool.ExitError
	switch {
	case !errors.As(err, &exit):
		return err
	case strings.Contains(exit.Report, "would be exceeded"), strings.Contains(exit.Report, "No space left"):
		return fault.New(fault.Image, "give it room with disk: {size: +1G}", "the image's own filesystem is full: %w", err)
	}
	return fault.New(fault.Image, "", "%w", err)
}

// repo is the argument that names the repository.
const repo = "--repo=" + at + "/" + repository

func inRoom(name string) string { return path.Join(at, name) }

// Checkout makes dir the tree of a commit, of hard links to its objects: no file in it may
// be written to. more are further options, as --union.
func (s *Sysroot) Checkout(ctx context.Context, commit, dir string, more ...string) error {
	args := append([]string{"checkout", repo, "--require-hardlinks"}, more...)
	_, err := s.Run(ctx, "check out "+commit, nil, append(args, commit, inRoom(dir))...)
	return err
}

// Commit is what a commit is made of.
type Commit struct {
	Tree   string    // a directory
	Tar    io.Reader // a tar archive, in place of a directory
	Parent string    // a commit, "" for none
	Branch string    // "" for none
	// Linked says that all of Tree that is a link to an object is that object still: not
	// read again, its labels kept.
	Linked   bool
	Bootable bool
	// Policy says that what is new is labelled by the policy of SELinux in Tree.
	Policy bool
	// Keep are keys of metadata that the parent has and the commit gets. Metadata is
	// what it gets besides.
	Keep     []string
	Metadata map[string]string
	Options  []string // further ones, as --no-bindings
}

// Commit makes a commit and gives its name.
func (s *Sysroot) Commit(ctx context.Context, c Commit) (string, error) {
	args := append([]string{"commit", repo}, c.Options...)
	flag := func(is bool, words ...string) {
		if is {
			args = append(args, words...)
		}
	}
	flag(c.Parent != "", "--parent="+c.Parent)
	flag(c.Branch != "", "--branch="+c.Branch)
	flag(c.Branch != "" && c.Parent == "", "--parent=none") // or it is what the branch was before
	flag(c.Branch == "", "--orphan")
	flag(c.Linked, "--devino-canonical")
	flag(c.Bootable, "--bootable")
	flag(c.Policy, "--selinux-policy="+inRoom(c.Tree))
	for _, key := range c.Keep {
		args = append(args, "--keep-metadata="+key)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Metadata)) { // their order is in the commit's name
		args = append(args, "--add-metadata-string="+key+"="+c.Metadata[key])
	}
	if c.Tar != nil {
		args = append(args, "--tree=tar=/proc/self/fd/0")
	} else {
		args = append(args, "--tree=dir="+inRoom(c.Tree))
	}
	name, err := s.Run(ctx, "make a commit", c.Tar, args...)
	if err == nil && !commitName().MatchString(name) {
		err = fmt.Errorf("make a commit: ostree says %q, which is no name of one", name)
	}
	return name, err
}

// Deploy is what a deployment is made of.
type Deploy struct {
	OS, Commit string
	Origin     string   // text of its origin file
	Options    []string // further ones of ostree admin deploy, as --karg-append=quiet
}

// Deploy makes a deployment of a commit the default one. Its /etc is that of the commit,
// with what the one before had changed. That becomes the rollback. Others that nobody has
// pinned go, unless the options have --retain.
func (s *Sysroot) Deploy(ctx context.Context, d Deploy) error {
	const origin = "/tmp/origin"
	args := append([]string{"admin", "deploy", "--sysroot=" + at, "--os=" + d.OS, "--origin-file=" + origin}, d.Options...)
	err := s.room.Enter(func() error { return os.WriteFile(origin, []byte(d.Origin), 0o644) })
	if err == nil {
		_, err = s.Run(ctx, "make a deployment", nil, append(args, d.Commit)...)
	}
	return err
}

// Undeploy removes the deployment of that number, 0 for the default. Cleanup gives the
// room back that it took.
func (s *Sysroot) Undeploy(ctx context.Context, index int) error {
	_, err := s.Run(ctx, "remove a deployment", nil, "admin", "undeploy", "--sysroot="+at, fmt.Sprint(index))
	return err
}

// Cleanup removes what no deployment and no branch needs any more.
func (s *Sysroot) Cleanup(ctx context.Context) error {
	_, err := s.Run(ctx, "remove what no deployment needs", nil, "admin", "cleanup", "--sysroot="+at)
	return err
}

// Fsck reads all objects and compares them with their names.
func (s *Sysroot) Fsck(ctx context.Context) error {
	_, err := s.Run(ctx, "check the repository", nil, "fsck", repo, "--quiet")
	return err
}

// HasMetadata says whether a commit has a key of metadata.
func (s *Sysroot) HasMetadata(ctx context.Context, commit, key string) (bool, error) {
	_, err := s.Run(ctx, "read the metadata of "+commit, nil, "show", repo, "--print-metadata-key="+key, commit)
	var exit *tool.ExitError
	if errors.As(err, &exit) && strings.Contains(exit.Report, "No such metadata key") {
		return false, nil
	}
	return err == nil, err
}

// readFile reads a file of a volume, on whose way no link lies.
func readFile(root *os.File, name string) (string, error) {
	fd, err := openat(root, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return "", err
	}
	defer fd.Close()
	fi, err := fd.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("read %s: it is no file", name)
	}
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(fd, maxConfig+1))
	if err == nil && len(b) > maxConfig {
		err = fmt.Errorf("read %s: it has more than %d KiB", name, maxConfig>>10)
	}
	return string(b), err
}

// OpenAt opens a path of a tree that a stranger made: no link lies on its way, nor at its end.
func OpenAt(dir *os.File, name string, flags uint64) (*os.File, error) {
	return openat(dir, name, flags)
}

// openat opens a path of a volume, on whose way no link lies, nor at its end.
func openat(dir *os.File, name string, flags uint64) (*os.File, error) {
	how := unix.OpenHow{Flags: flags | unix.O_CLOEXEC | unix.O_NOFOLLOW, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	for {
		fd, err := unix.Openat2(int(dir.Fd()), name, &how)
		if err == unix.EAGAIN || err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
		return os.NewFile(uintptr(fd), name), nil
	}
}
