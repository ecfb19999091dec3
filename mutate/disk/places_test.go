package disk

import (
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/gpt"
	"github.com/imgmut/imgmut/mutate/mount"
)

// TestRoleOfAVolume: of several places the first that has a role is a volume's, and the
// first of all if none has; by its type a partition is an ESP wherever it is mounted.
func TestRoleOfAVolume(t *testing.T) {
	for _, tc := range []struct {
		name   string
		volume Volume
		mounts []string // places; with a ? by hand
		want   string   // role and place
	}{
		{"nowhere", Volume{FS: "ext4"}, nil, " "},
		{"a place without a role", Volume{FS: "ext4"}, []string{"/data"}, " /data"},
		{"two of those", Volume{FS: "ext4"}, []string{"/data", "/opt"}, " /data"},
		{"a role second", Volume{FS: "ext4"}, []string{"/data", "/home"}, "home /home"},
		{"a role first", Volume{FS: "ext4"}, []string{"/home", "/opt"}, "home /home"},
		{"two roles", Volume{FS: "ext4"}, []string{"/home", "/srv"}, "home /home"},
		{"by hand", Volume{FS: "ext4"}, []string{"/home?"}, " "},
		{"by hand, at the start elsewhere", Volume{FS: "ext4"}, []string{"/home?", "/data"}, " /data"},
		{"/boot by hand", Volume{FS: "ext4"}, []string{"/boot?"}, "boot /boot"},
		{"an ESP", Volume{FS: "vfat", Type: gpt.TypeESP.String()}, nil, "esp "},
		{"an ESP of a DOS table", Volume{FS: "vfat", Type: "0xef"}, nil, "esp "},
		{"an ESP in capitals, on /boot", Volume{FS: "vfat", Type: strings.ToUpper(gpt.TypeESP.String())},
			[]string{"/boot"}, "esp /boot"},
		{"a FAT of another type", Volume{FS: "vfat", Type: "0x0c"}, nil, " "},
		{"swap", Volume{FS: "swap"}, nil, "swap "},
	} {
		tc.volume.Slot, tc.volume.Role, tc.volume.Mountpoint = 2, Var, "/var" // from before
		l := &Layout{Volumes: []Volume{{Slot: 1}, tc.volume}, Mounts: []Mounted{{Mountpoint: "/", Slot: 1}}}
		for _, place := range tc.mounts {
			place, byHand := strings.CutSuffix(place, "?")
			l.Mounts = append(l.Mounts, Mounted{Mountpoint: place, Slot: 2, ByHand: byHand})
		}
		l.giveRoles()
		if got := string(l.Volumes[1].Role) + " " + l.Volumes[1].Mountpoint; got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestCover: what the image has below a mount that is not of the image is hidden from the
// started system, unless that mount is made by hand alone, or is one that each system makes.
func TestCover(t *testing.T) {
	l := &Layout{Mounts: []Mounted{
		{Mountpoint: "/", Slot: 1}, {Mountpoint: "/home", Slot: 2}, {Mountpoint: "/tmp", Cover: "a tmpfs"},
		{Mountpoint: "/run/lock", Cover: "a tmpfs"}, {Mountpoint: "/media", Cover: "another disk", ByHand: true},
		{Mountpoint: "/var/cache", Cover: "a tmpfs"}, {Mountpoint: "/srv", Bind: "/run/srv", Cover: "/run/srv"},
	}}
	for name, want := range map[string]string{
		"/var/cache": "/var/cache", "/var/cache/apt/x": "/var/cache", "/srv/www": "/srv",
		"/": "", "/var": "", "/var/cached": "", "/home/user": "", "/etc/fstab": "",
		"/tmp/x": "", "/run/lock/x": "", "/media/x": "",
	} {
		m, ok := l.Cover(name)
		if m.Mountpoint != want || ok != (want != "") || l.covered(name) != ok {
			t.Errorf("%s is hidden by %q, %t, want %q", name, m.Mountpoint, ok, want)
		}
	}
	var places []string
	for _, m := range l.Covers() {
		places = append(places, m.Mountpoint)
	}
	if want := []string{"/var/cache", "/srv"}; !slices.Equal(places, want) {
		t.Errorf("%q hide something, want %q", places, want)
	}
}

// TestWhoReadsAMount: what is mounted of a volume is read as part of the system's tree and
// mounted for a guest, if the kernel has a driver for it. FAT is read without the kernel,
// and on a kernel without it a guest gets an empty place.
func TestWhoReadsAMount(t *testing.T) {
	type who struct{ inSystem, mountable, sealed bool }
	fat := mount.KernelHas("vfat")
	for _, tc := range []struct {
		name   string
		volume Volume
		mount  Mounted
		want   who
	}{
		{"an ext4", Volume{Slot: 2, FS: "ext4"}, Mounted{Slot: 2}, who{inSystem: true, mountable: true}},
		{"a bare one", Volume{FS: "ext4"}, Mounted{}, who{inSystem: true, mountable: true}},
		{"one that is only read", Volume{Slot: 2, FS: "erofs"}, Mounted{Slot: 2}, who{inSystem: true, mountable: true}},
		{"a FAT", Volume{Slot: 2, FS: "vfat"}, Mounted{Slot: 2}, who{mountable: fat, sealed: !fat}},
		{"a FAT by hand", Volume{Slot: 2, FS: "vfat"}, Mounted{Slot: 2, ByHand: true}, who{}},
		{"an ext4 by hand", Volume{Slot: 2, FS: "ext4"}, Mounted{Slot: 2, ByHand: true}, who{}},
		{"what has no driver", Volume{Slot: 2, FS: "ntfs"}, Mounted{Slot: 2}, who{}},
		{"nothing known", Volume{Slot: 2}, Mounted{Slot: 2}, who{}},
		{"a volume that is not there", Volume{Slot: 2, FS: "ext4"}, Mounted{Slot: 3}, who{}},
		{"a bind, beside a bare volume", Volume{FS: "ext4"}, Mounted{Bind: "/opt"}, who{}},
		{"memory, beside a bare volume", Volume{FS: "ext4"}, Mounted{Cover: "a tmpfs"}, who{}},
		{"memory, beside a bare FAT", Volume{FS: "vfat"}, Mounted{Cover: "a tmpfs"}, who{}},
	} {
		tc.mount.Mountpoint = "/mnt"
		i := &Image{Layout: &Layout{Volumes: []Volume{tc.volume}, Mounts: []Mounted{tc.mount}}}
		if got := (who{i.InSystem(tc.mount), i.mountable(tc.mount), i.sealed(tc.mount)}); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
	// What something else is mounted over is neither.
	hidden := Mounted{Mountpoint: "/mnt/efi", Slot: 2}
	mounts := []Mounted{hidden, {Mountpoint: "/mnt", Cover: "a tmpfs"}}
	i := &Image{Layout: &Layout{Volumes: []Volume{{Slot: 2, FS: "vfat"}}, Mounts: mounts}}
	if i.sealed(hidden) {
		t.Error("a FAT below what hides it is one that the guest lacks")
	}
}

// TestFilesystemsOfALayout: those that the kernel tells apart by their UUIDs, so that two
// forks are not mounted at once; what holds none is no filesystem.
func TestFilesystemsOfALayout(t *testing.T) {
	l := &Layout{Volumes: []Volume{{Slot: 1}, {Slot: 2, FS: "xfs", UUID: "a"}, {Slot: 3, FS: "vfat", UUID: "b"}}}
	want := []mount.Filesystem{{Type: "xfs", UUID: "a"}, {Type: "vfat", UUID: "b"}}
	if got := l.Filesystems(); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}
