package mount_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
)

// secondDevice makes a btrfs in the second file that was in the first: what is left is
// its device of number 2.
const secondDevice = `
first=$(losetup --find --show "$1") second=$(losetup --find --show "$2")
trap 'umount "$3"; losetup --detach "$first"; losetup --detach "$second"' EXIT
mkfs.btrfs -q "$first"
mount "$first" "$3"
btrfs -q device add "$second" "$3"
btrfs -q device remove "$first" "$3"`

// TestGrow: a filesystem is as large as its device afterwards, and one that does not grow
// while it is mounted stays as it is.
func TestGrow(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	const small, large = 400 << 20, 900 << 20
	for name, tc := range map[string]struct {
		fs   string
		make func(file string)
		want string
	}{
		"xfs":   {"xfs", func(file string) { program(t, "mkfs.xfs", "-q", file) }, ""},
		"btrfs": {"btrfs", func(file string) { program(t, "mkfs.btrfs", "-q", file) }, ""},
		"btrfs that came from another device": {"btrfs", func(file string) {
			sparse(t, file+".first", small)
			program(t, "unshare", "--mount", "sh", "-euc", secondDevice, "sh", file+".first", file, t.TempDir())
		}, ""},
		"ext4": {"ext4", func(file string) { program(t, "mke2fs", "-q", "-t", "ext4", file) }, "ext4 does not grow while it is mounted"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "volume")
			sparse(t, file, small)
			tc.make(file)
			sparse(t, file, large)
			f, err := os.OpenFile(file, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			m := mounted(t, attached(t, f, mount.DiskOptions{}), mount.Request{FS: tc.fs})[0]
			was := sizeOf(t, m)
			err = mount.Grow(t.Context(), m, tc.fs, large)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || sizeOf(t, m) != was {
					t.Errorf("Grow() = %v, want %s", err, tc.want)
				}
				return
			}
			// XFS does not count its log.
			if now := sizeOf(t, m); err != nil || now < was+large-small-1<<20 || now > large {
				t.Errorf("Grow() = %v, %d bytes became %d", err, was, now)
			}
		})
	}
}

// TestGrowXFSThatWasMadeSmall: it would be of more groups than make sense, and whoever waits
// for it can end that.
func TestGrowXFSThatWasMadeSmall(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	const small, large = 320 << 20, 20 << 30
	file := filepath.Join(t.TempDir(), "volume")
	sparse(t, file, small)
	program(t, "mkfs.xfs", "-q", file)
	sparse(t, file, large)
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m := mounted(t, attached(t, f, mount.DiskOptions{}), mount.Request{FS: "xfs"})[0]
	was := sizeOf(t, m)
	err = mount.Grow(t.Context(), m, "xfs", 100<<40)
	if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), "allocation groups") || sizeOf(t, m) != was {
		t.Errorf("to 100 TiB: %v", err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := mount.Grow(ctx, m, "xfs", large); !errors.Is(err, cause) || sizeOf(t, m) != was {
		t.Errorf("with an end: %v", err)
	}
	if err := mount.Grow(t.Context(), m, "xfs", large); err != nil || sizeOf(t, m) < large-1<<30 {
		t.Errorf("to 20 GiB: %v, %d bytes", err, sizeOf(t, m))
	}
}

// sparse makes a file that long.
func sparse(t *testing.T, file string, size int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// sizeOf is the size of a mounted filesystem.
func sizeOf(t *testing.T, m *os.File) int64 {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(m.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks) * st.Bsize
}
