package mount_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/mount"
)

// partitioned is an image of two ext4 partitions, with sectors of that size.
func partitioned(t *testing.T, sector int) (*os.File, mount.DiskOptions) {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.img"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	o := mount.DiskOptions{SectorSize: sector, Partitions: []mount.Partition{
		{Slot: 1, Start: 1 << 20, Size: 16 << 20}, {Slot: 15, Start: 20 << 20, Size: 16 << 20},
	}}
	for _, p := range o.Partitions {
		tree := t.TempDir()
		if err := os.WriteFile(filepath.Join(tree, "name"), []byte(p.Name()), 0o644); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{"inner", "other/deep"} {
			if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		program(t, "mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, "-E", "offset="+itoa(p.Start), f.Name(), "16M")
	}
	return f, o
}

// attached attaches a disk for the time of the test.
func attached(t *testing.T, f *os.File, o mount.DiskOptions) *mount.Disk {
	t.Helper()
	d, err := mount.AttachDisk(f, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// mounted makes mounts, which have to succeed.
func mounted(t *testing.T, d *mount.Disk, requests ...mount.Request) []*os.File {
	t.Helper()
	mounts, errs := d.Mount(requests...)
	for n, err := range errs {
		if err != nil {
			t.Fatalf("mount slot %d: %v", requests[n].Slot, err)
		}
		t.Cleanup(func() { mounts[n].Close() })
	}
	return mounts
}

// readBelow reads a file below a directory.
func readBelow(t *testing.T, dir *os.File, name string) string {
	t.Helper()
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("open %s: %v", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	b := make([]byte, 4096)
	n, _ := f.Read(b)
	return string(b[:n])
}

// TestDiskWithPartitions: each is found by its slot, whatever size sectors have, and
// nothing is left of the disk afterwards.
func TestDiskWithPartitions(t *testing.T) {
	for _, sector := range []int{0, 4096} {
		f, o := partitioned(t, sector)
		d := attached(t, f, o)
		mounts := mounted(t, d, mount.Request{Slot: 1, FS: "ext4"}, mount.Request{Slot: 15, FS: "ext4", ReadOnly: true})
		for n, want := range []string{"vda1", "vda15"} {
			if got := readBelow(t, mounts[n], "name"); got != want {
				t.Errorf("sectors of %d: %s is mounted for %s", sector, got, want)
			}
			mounts[n].Close()
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if err := mount.WaitReleased(t.Context(), f.Name()); err != nil {
			t.Error(err)
		}
	}
}

// TestNamesOfADisk: the kernel tells mounts by the names of a virtual machine, and the
// machine's own /dev is as it was.
func TestNamesOfADisk(t *testing.T) {
	if _, err := os.Stat("/dev/vda15"); err == nil {
		t.Skip("this machine has a disk of that name itself")
	}
	f, o := partitioned(t, 0)
	d := attached(t, f, o)
	tree, err := mount.Assemble([]mount.Place{{At: "/", Mount: mounted(t, d, mount.Request{Slot: 15, FS: "ext4"})[0]},
		{At: "/inner", Mount: mounted(t, d, mount.Request{Slot: 1, FS: "ext4"})[0]}})
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	for _, name := range []string{"vda1", "vda15"} {
		if _, err := os.Stat("/dev/" + name); err == nil {
			t.Errorf("the machine has a /dev/%s now", name)
		}
	}
	if table := mountTable(t, tree); !strings.Contains(table, " - ext4 /dev/vda15 ") || !strings.Contains(table, " /inner ") ||
		!strings.Contains(table, " - ext4 /dev/vda1 ") {
		t.Errorf("the mounts of the tree are:\n%s", table)
	}
}

// TestNewLent: a /dev has the disk, under its names, which are devices to whoever may use
// them, and no other disk.
func TestNewLent(t *testing.T) {
	f, o := partitioned(t, 0)
	d := attached(t, f, o)
	m, err := d.NewLent(12, map[string]string{"disk/by-label/a": "../../vda1", "loop9p1": "vda1"})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	dir := fmt.Sprintf("/proc/self/fd/%d/dev", m.Fd())
	disks := map[string]int{"vda": 0, "vda1": 1, "vda15": 15}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(dir, e.Name()), &st); err != nil || st.Uid != 12 || st.Gid != 12 {
			t.Errorf("%s belongs to %d, %v", e.Name(), st.Uid, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFBLK {
			continue
		}
		slot, ok := disks[e.Name()]
		major, minor, err := d.Number(slot)
		if !ok || err != nil || st.Rdev != unix.Mkdev(major, minor) || st.Mode&0o777 != 0o660 {
			t.Errorf("%s is %d:%d, %o, %v", e.Name(), unix.Major(st.Rdev), unix.Minor(st.Rdev), st.Mode, err)
		}
		delete(disks, e.Name())
	}
	if len(disks) > 0 {
		t.Errorf("it lacks %v", disks)
	}
	for _, name := range []string{"disk/by-label/a", "loop9p1"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, name), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
			t.Errorf("%s leads to a file of mode %o, %v", name, st.Mode, err)
		}
	}
	node, err := os.OpenFile(filepath.Join(dir, "vda1"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 2)
	if _, err := node.ReadAt(text, 1024+0x38); err != nil || text[0] != 0x53 || text[1] != 0xef { // the magic of ext4
		t.Errorf("the node reads %x, %v", text, err)
	}
	node.Close()
	if err := os.WriteFile(filepath.Join(dir, "null"), []byte("x"), 0); err != nil {
		t.Error(err)
	}
}

// TestDetach: a disk goes at once, also if somebody has taken it that it goes by itself.
func TestDetach(t *testing.T) {
	f, o := partitioned(t, 0)
	d, err := mount.AttachDisk(f, o)
	if err != nil {
		t.Fatal(err)
	}
	node, err := os.OpenFile("/dev/"+d.KernelName(0), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlLoopSetStatus64(int(node.Fd()), &unix.LoopInfo64{}); err != nil { // with no flags
		t.Fatal(err)
	}
	node.Close()
	if err := d.Detach(); err != nil {
		t.Error(err)
	}
	if err := mount.WaitReleased(t.Context(), f.Name()); err != nil {
		t.Error(err)
	}
}

// TestUnknownPartition is an error about it, and of no other.
func TestUnknownPartition(t *testing.T) {
	f, o := partitioned(t, 0)
	d := attached(t, f, o)
	mounts, errs := d.Mount(mount.Request{Slot: 7, FS: "ext4"}, mount.Request{Slot: 1, FS: "ext4"})
	if errs[0] == nil || errs[1] != nil {
		t.Fatalf("errors %v", errs)
	}
	mounts[1].Close()
}

// TestOverlappingPartitions are refused by the kernel, and said.
func TestOverlappingPartitions(t *testing.T) {
	f, o := partitioned(t, 0)
	o.Partitions[1].Start = 8 << 20
	d, err := mount.AttachDisk(f, o)
	if err == nil {
		_, errs := d.Mount(mount.Request{Slot: 15, FS: "ext4"})
		if err = errs[0]; err == nil {
			t.Error("it was mounted")
		}
		d.Close()
	}
	if err := mount.WaitReleased(t.Context(), f.Name()); err != nil {
		t.Error(err)
	}
}
