package disk

import (
	"fmt"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/fault"
)

// mountedImage is an image of volumes that are mounted for a guest: directories, by slot.
func mountedImage(t *testing.T, volumes map[int]map[string]string) *Image {
	t.Helper()
	i := &Image{
		Layout: &Layout{}, guest: &GuestOptions{},
		mounted: map[part]*os.File{}, views: map[part]*os.File{}, dirs: map[string]*os.File{},
	}
	for slot, files := range volumes {
		dir, err := os.Open(watchedDir(t, files))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { dir.Close() })
		i.Layout.Volumes = append(i.Layout.Volumes, Volume{Slot: slot, FS: "ext4"})
		i.mounted[part{slot: slot}], i.views[part{slot: slot}] = dir, dir
	}
	return i
}

// TestLinksOnTheWay: a mount on a link is none that the system makes, and what is bound is
// found as the mounts before it show it: through links of whichever volume is seen there.
func TestLinksOnTheWay(t *testing.T) {
	one := map[string]string{
		"in": "-> opt", "opt/one": "", "z/x": "",
		"mnt/on/way": "-> /opt/one", "a/b/way": "-> /opt/one", "c/z/way": "-> /opt/one",
	}
	two := map[string]string{"way": "-> /opt/two", "dir/way": "-> ../opt/deep"}
	root := Mounted{Mountpoint: "/", Slot: 1}
	for _, tc := range []struct {
		name   string
		mounts []Mounted // beside root
		want   string
	}{
		{"a place", []Mounted{{Mountpoint: "/mnt/on", Slot: 2}}, "/mnt/on=2"},
		{"a link on the way to a place", []Mounted{{Mountpoint: "/in/x", Slot: 2}}, "/in/x=2?"},
		{"a link at the place", []Mounted{{Mountpoint: "/in", Slot: 2}}, "/in=2?"},
		{"a link in a volume", []Mounted{{Mountpoint: "/mnt/on", Slot: 2}, {Mountpoint: "/mnt/on/way", Slot: 3}},
			"/mnt/on=2 /mnt/on/way=3?"},
		{"a link that a mount hides", []Mounted{{Mountpoint: "/mnt", Slot: 2}, {Mountpoint: "/mnt/on/way", Slot: 2}},
			"/mnt=2 /mnt/on/way=2"},
		{"a place that is missing", []Mounted{{Mountpoint: "/none/x", Slot: 2}}, "/none/x=2"},
		{"what is bound by a link", []Mounted{{Mountpoint: "/x", Bind: "/in/one"}}, "/x=/opt/one"},
		{"by one of root", []Mounted{{Mountpoint: "/x", Bind: "/mnt/on/way"}}, "/x=/opt/one"},
		{"by one of a volume", []Mounted{{Mountpoint: "/mnt/on", Slot: 2}, {Mountpoint: "/x", Bind: "/mnt/on/way"}},
			"/mnt/on=2 /x=/opt/two"},
		{"by one below a bind", []Mounted{{Mountpoint: "/mnt/on", Slot: 2}, {Mountpoint: "/x", Bind: "/mnt/on/dir"},
			{Mountpoint: "/y", Bind: "/x/way"}}, "/mnt/on=2 /x=/mnt/on/dir /y=/opt/deep"},
		{"below a bind, without what is mounted", []Mounted{{Mountpoint: "/a/b", Slot: 2}, {Mountpoint: "/x", Bind: "/a"},
			{Mountpoint: "/y", Bind: "/x/b/way"}}, "/a/b=2 /x=/a /y=/opt/one"},
		{"and with it", []Mounted{{Mountpoint: "/a/b", Slot: 2}, {Mountpoint: "/x", Bind: "/a", Recursive: true},
			{Mountpoint: "/y", Bind: "/x/b/way"}}, "/a/b=2 /x=/a /y=/opt/two"},
		{"but not with what is elsewhere", []Mounted{{Mountpoint: "/z", Slot: 2}, {Mountpoint: "/x", Bind: "/c", Recursive: true},
			{Mountpoint: "/y", Bind: "/x/z/way"}}, "/z=2 /x=/c /y=/opt/one"},
		{"in what the guest lacks", []Mounted{{Mountpoint: "/mnt/on", Slot: 3}, {Mountpoint: "/x", Bind: "/mnt/on/way"}},
			"/mnt/on=3 /x=/mnt/on/way"},
		{"in what is another's", []Mounted{{Mountpoint: "/mnt", Cover: "a tmpfs"}, {Mountpoint: "/x", Bind: "/mnt/on/way"}},
			"/mnt!tmpfs /x=/mnt/on/way"},
		{"by hand", []Mounted{{Mountpoint: "/x", Bind: "/in", ByHand: true}}, "/x=/in?"},
	} {
		i := mountedImage(t, map[int]map[string]string{1: one, 2: two})
		i.Layout.Volumes = append(i.Layout.Volumes, Volume{Slot: 3, FS: "ext4"})
		i.views[part{slot: 3}] = i.views[part{slot: 2}] // which was looked into, and is no mount of the guest's
		real, _, err := i.inReality(append([]Mounted{root}, tc.mounts...))
		if got := strings.TrimPrefix(told(real), "/=1 "); got != tc.want || err != nil {
			t.Errorf("%s: %s, %v; want %s", tc.name, got, err, tc.want)
		}
	}
}

// TestMostMounts: a thousand are allowed.
func TestMostMounts(t *testing.T) {
	for count, allowed := range map[int]bool{maxShown: true, maxShown + 1: false} {
		mounts := []Mounted{{Mountpoint: "/", Slot: 1}}
		for n := range count - 1 {
			mounts = append(mounts, Mounted{Mountpoint: fmt.Sprintf("/%d", n), Cover: "a tmpfs"})
		}
		_, where, err := mountedImage(t, map[int]map[string]string{1: nil}).inReality(mounts)
		if allowed && (err != nil || len(where) != 2*count) || !allowed && fault.Of(err) != fault.Image {
			t.Errorf("%d mounts: %v", count, err)
		}
	}
}

// TestChainsOfLinks: as many links as the kernel follows on the way to a file are
// followed, and not one more.
func TestChainsOfLinks(t *testing.T) {
	next := func(name string) (string, bool) {
		n := 0
		if _, err := fmt.Sscanf(path.Base(name), "link%d", &n); err != nil {
			return "", false
		}
		if n == 1 {
			return "/end", true
		}
		return fmt.Sprintf("link%d", n-1), true
	}
	for _, tc := range []struct {
		name   string
		follow bool
		want   string
	}{
		{"/link40", true, "/end"},
		{"/link41", true, "/link1"},
		{"/link40/x", false, "/end/x"},
		{"/link41/x", false, "/link1/x"},
		{"/link2/link2", false, "/end/link2"},
		{"/link2", false, "/link2"},
	} {
		if got := followLinks(tc.name, tc.follow, next); got != tc.want {
			t.Errorf("%s leads to %s, want %s", tc.name, got, tc.want)
		}
	}
}
