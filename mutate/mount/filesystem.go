package mount

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lock"
)

// Filesystem is what the kernel tells filesystems apart by. A fork has that of
// what it was forked from.
type Filesystem struct {
	Type string // as blkid(8) names it
	UUID string
}

// Claim says which filesystems are about to be mounted.
//
// The kernel refuses to mount two XFS of one UUID at a time, and before Linux
// 6.7 two btrfs. imgmut's own mounts of XFS pass nouuid, which makes them an
// exception; machined does not.
type Claim struct {
	Filesystems []Filesystem
	Fork        string // the file that is about to be mounted
	Foreign     bool   // and machined does it
	// Note is told if another imgmut is waited for.
	Note func(string)
}

// Lock waits until no other imgmut on this machine has a filesystem of the claim
// mounted in a way that is in the way, and keeps it so until unlock is called.
// It is an error of class [fault.Host] if something else on the machine has.
func (c Claim) Lock(ctx context.Context) (unlock func(), err error) {
	var unlocks []func()
	unlock = func() {
		for _, u := range unlocks {
			u()
		}
	}
	for _, id := range c.contested() {
		u, err := c.lock(ctx, id)
		if err != nil {
			unlock()
			return nil, fmt.Errorf("wait for other forks of filesystem %s: %w", id.UUID, err)
		}
		unlocks = append(unlocks, u)
		if err := c.checkMounts(id); err != nil {
			unlock()
			return nil, err
		}
	}
	return unlock, nil
}

// contested are the filesystems of the claim that can be mounted once only, in
// one order for all, or two claims could wait for each other.
func (c Claim) contested() []Filesystem {
	var list []Filesystem
	for _, f := range c.Filesystems {
		if f.UUID != "" && c.conflictMend(f, kernelRelease()) != "" {
			list = append(list, f)
		}
	}
	slices.SortFunc(list, func(a, b Filesystem) int { return strings.Compare(a.UUID, b.UUID) })
	return slices.Compact(list)
}

// lock takes the lock of one UUID. Beside it stands which fork is mounted: a
// killed process loses its lock at once, but its mount lives on for a while, and
// if it was frozen, for ever. So the next holder first frees the fork noted here.
func (c Claim) lock(ctx context.Context, f Filesystem) (unlock func(), err error) {
	name := "filesystem-" + filepath.Base(f.UUID)
	release, err := lock.Machine(ctx, name, func() {
		c.Note("waiting: another imgmut has a fork of the same filesystem mounted")
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			release()
		}
	}()
	mounted, err := lock.MachineFile(name + ".mounted")
	if err != nil {
		return nil, err
	}
	if left, err := os.ReadFile(mounted); err == nil {
		if err := Recover(ctx, string(left)); err != nil {
			return nil, err
		}
		os.Remove(mounted)
	}
	if err := os.WriteFile(mounted, []byte(c.Fork), 0o600); err != nil {
		return nil, err
	}
	return func() {
		// The kernel lets go of a mount some time after the guest has ended.
		if Recover(context.WithoutCancel(ctx), c.Fork) == nil {
			os.Remove(mounted)
		}
		release()
	}, nil
}

// checkMounts looks for a mount of the same filesystem that is none of imgmut's:
// a cloud machine's own root is often the very image that its user builds on.
func (c Claim) checkMounts(f Filesystem) error {
	mend := c.conflictMend(f, kernelRelease())
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range parseMounts(string(table)) {
		if m.fs == f.Type && !slices.Contains(m.options, "nouuid") && diskUUID(m.source, m.fs) == strings.ToLower(f.UUID) {
			return fault.New(fault.Host, "unmount "+m.place+" meanwhile, or "+mend,
				"the machine has a filesystem (%s) with the UUID of the image mounted (%s, from %s, on %s), "+
					"and the kernel mounts one UUID once",
				m.fs, f.UUID, m.source, m.place)
		}
	}
	return nil
}

// MountedOnce says whether this kernel mounts a filesystem of that type only once,
// however many forks of it there are.
func MountedOnce(fs string) bool {
	return Claim{}.conflictMend(Filesystem{Type: fs}, kernelRelease()) != ""
}

// kernelRelease is that of uname(2), empty if it cannot be told.
func kernelRelease() string {
	var kernel unix.Utsname
	if err := unix.Uname(&kernel); err != nil {
		return ""
	}
	return unix.ByteSliceToString(kernel.Release[:])
}

// conflictMend says how another mount of the filesystem can be got round; it is
// "" if it is in nobody's way.
func (c Claim) conflictMend(f Filesystem, kernel string) string {
	var major, minor int
	switch f.Type {
	case "xfs":
		if c.Foreign {
			return "build on a machine that has it not mounted"
		}
	case "btrfs":
		_, err := fmt.Sscanf(kernel, "%d.%d", &major, &minor)
		if err == nil && (major < 6 || major == 6 && minor < 7) {
			return "build on a machine with Linux 6.7 or later"
		}
	}
	return ""
}

// mountLine is a line of /proc/self/mountinfo.
type mountLine struct {
	place, fs, source string
	options           []string // of the filesystem
}

// parseMounts reads /proc/self/mountinfo (proc(5)):
//
//	ID PARENT DEV ROOT PLACE OPTIONS [TAG…] - TYPE SOURCE SUPEROPTIONS
func parseMounts(table string) []mountLine {
	var mounts []mountLine
	for line := range strings.Lines(table) {
		before, after, _ := strings.Cut(line, " - ")
		mount, fs := strings.Fields(before), strings.Fields(after)
		if len(mount) > 4 && len(fs) > 2 {
			mounts = append(mounts, mountLine{mount[4], fs[0], fs[1], strings.Split(fs[2], ",")})
		}
	}
	return mounts
}

// uuidAt is where filesystems have their UUID on the disk: XFS in its superblock
// at the start (sb_uuid of fs/xfs/libxfs/xfs_format.h), btrfs in the one at 64 KiB
// (fsid of include/uapi/linux/btrfs_tree.h).
var uuidAt = map[string]int64{"xfs": 32, "btrfs": 64<<10 + 32}

// diskUUID reads the UUID of a filesystem off its device. It is "" for a device
// that cannot be read, such as one of another mount namespace.
func diskUUID(device, fs string) string {
	f, err := os.Open(device)
	if err != nil {
		return ""
	}
	defer f.Close()
	var id uuid.UUID
	if _, err := f.ReadAt(id[:], uuidAt[fs]); err != nil {
		return ""
	}
	return id.String()
}
