package reflink

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// names are filesystems by the magic number that statfs(2) gives.
var names = map[int64]string{
	unix.XFS_SUPER_MAGIC: "XFS", unix.BTRFS_SUPER_MAGIC: "btrfs", unix.EXT4_SUPER_MAGIC: "ext4", unix.TMPFS_MAGIC: "tmpfs",
	unix.OVERLAYFS_SUPER_MAGIC: "overlay", unix.F2FS_SUPER_MAGIC: "f2fs", unix.NFS_SUPER_MAGIC: "NFS",
	zfsMagic: "ZFS", bcachefsMagic: "bcachefs",
}

// The magic numbers of filesystems that are not part of the kernel.
const (
	zfsMagic      = 0x2fc12fc1 // ZFS_SUPER_MAGIC
	bcachefsMagic = 0xca451a4e // BCACHEFS_STATFS_MAGIC
)

// Filesystem gives the name of the filesystem that dir is on, as people know it.
func Filesystem(dir string) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "", fmt.Errorf("ask for the filesystem of %s: %w", dir, err)
	}
	if name, ok := names[int64(st.Type)]; ok {
		return name, nil
	}
	return fmt.Sprintf("a filesystem of type %#x", st.Type), nil
}

// CloningOff says what keeps ZFS from cloning: a parameter of its module, which is in the
// directory parameters, and is 0 in the versions in which cloning lost data. It is "" if
// nothing does.
func CloningOff(parameters string) string {
	b, err := os.ReadFile(parameters + "/zfs_bclone_enabled")
	if err == nil && strings.TrimSpace(string(b)) == "0" {
		return "zfs_bclone_enabled is 0"
	}
	return ""
}

// ZFSParameters is where the kernel shows the parameters of ZFS.
const ZFSParameters = "/sys/module/zfs/parameters"
