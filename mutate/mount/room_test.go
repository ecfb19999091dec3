package mount_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/mount"
)

// volume is a detached mount of a new ext4, in which a script has made files.
func volume(t *testing.T, script string, users *os.File) *os.File {
	t.Helper()
	f := formatted(t, "mkfs.ext4", "-q")
	const inside = `mount -o loop "$1" /mnt; cd /mnt; eval "$2"; cd /; umount /mnt`
	fixtures.Program(t, "", "unshare", "--mount", "sh", "-euc", inside, "sh", f.Name(), script)
	dev := attach(t, f, mount.LoopOptions{})
	m, err := mount.Detached(mount.Request{Device: dev.Name(), FS: "ext4", Users: users})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// TestRoom: there is nothing of the machine but libraries and the programs that were asked
// for; nothing of it can be written, and nothing of the image be executed.
func TestRoom(t *testing.T) {
	m := volume(t, `echo x >covered; cp /bin/true program; ln -s /etc/passwd link; ln -s / dir`, nil)
	store := t.TempDir()
	dir, err := mount.Directory(store, false)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	r, err := mount.NewRoom(mount.RoomOptions{
		Programs: map[string]string{"cat": "/usr/bin/cat", "nothing": "/usr/bin/true"},
		Places:   []mount.Place{{At: "/image", Mount: m}, {At: "/store", Mount: dir}},
		Covers:   map[string]string{"/image/covered": "y\n"},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	err = r.Enter(func() error {
		var names []string
		for _, dir := range []string{"/", "/usr/bin"} {
			entries, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			for _, e := range entries {
				names = append(names, e.Name())
			}
		}
		for _, name := range []string{"home", "root", "sys", "boot", "sh", "bash"} {
			if slices.Contains(names, name) {
				t.Errorf("there is %s: %v", name, names)
			}
		}
		if out, err := exec.Command("/usr/bin/cat", "/image/covered").CombinedOutput(); err != nil || string(out) != "y\n" {
			t.Errorf("cat: %q, %v", out, err)
		}
		if err := exec.Command("/usr/bin/nothing", "--and", "more").Run(); err != nil {
			t.Error(err)
		}
		if err := exec.Command("/image/program").Run(); !errors.Is(err, syscall.EACCES) {
			t.Errorf("a program of the image: %v", err)
		}
		if b, err := os.ReadFile("/image/link"); err == nil {
			t.Errorf("a link leads to %q", b)
		}
		if err := os.WriteFile("/image/dir/usr/lib/imgmut-test", nil, 0o600); !errors.Is(err, syscall.EROFS) {
			t.Errorf("write to the machine's libraries: %v", err)
		}
		return errors.Join(os.WriteFile("/image/made", []byte("made"), 0o600), os.WriteFile("/store/made", []byte("made"), 0o600))
	})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(store, "made")); string(b) != "made" {
		t.Errorf("the directory has %q, %v", b, err)
	}
	if table, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(table), "room") {
		t.Errorf("it is mounted on the machine: %v", err)
	}
}

// TestRoomFollowsNoLink on the way to a place of the image.
func TestRoomFollowsNoLink(t *testing.T) {
	for name, o := range map[string]mount.RoomOptions{
		"a place": {Places: []mount.Place{{At: "/image/link/x"}}},
		"a cover": {Covers: map[string]string{"/image/link/x": ""}},
		"its end": {Covers: map[string]string{"/image/end": ""}},
	} {
		m := volume(t, `ln -s /usr link; ln -s /usr/bin/nothing end`, nil)
		other := volume(t, "true", nil)
		for n := range o.Places {
			o.Places[n].Mount = other
		}
		o.Places = append([]mount.Place{{At: "/image", Mount: m}}, o.Places...)
		if r, err := mount.NewRoom(o); !errors.Is(err, syscall.ELOOP) {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				r.Close()
			}
		}
	}
}

// TestOverlay: what is written is in the upper directory with the owners that the image
// has, and not in the lower one; the view shows it, and cannot be written to.
func TestOverlay(t *testing.T) {
	users := mount.GuestUsers("overlay")
	ns, err := users.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	m := volume(t, `mkdir -p lower/dir work/u work/w; echo lower >lower/dir/a; chown 33:33 lower/dir/a; chmod 0700 work`, ns)
	over, view, err := mount.Overlay(m, "lower", "work/u", "work/w")
	if err != nil {
		t.Fatal(err)
	}
	defer over.Close()
	defer view.Close()
	var st unix.Stat_t
	if err := unix.Fstatat(int(over.Fd()), "dir/a", &st, 0); err != nil || st.Uid != users.Shift+33 {
		t.Errorf("the owner is %d, want %d: %v", st.Uid, users.Shift+33, err)
	}
	fd, err := unix.Openat(int(over.Fd()), "dir/a", unix.O_WRONLY|unix.O_APPEND|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = unix.Write(fd, []byte("more\n"))
	unix.Close(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Fchownat(int(over.Fd()), "dir/a", int(users.Shift)+5, int(users.Shift)+5, 0); err != nil {
		t.Error(err)
	}
	if _, err := unix.Openat(int(view.Fd()), "dir/new", unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC, 0o600); err != unix.EROFS {
		t.Errorf("write to the view: %v", err)
	}
	if err := unix.Fstatat(int(view.Fd()), "dir/a", &st, 0); err != nil || st.Uid != users.Shift+5 || st.Size != 11 {
		t.Errorf("the view shows an owner %d and %d bytes: %v", st.Uid, st.Size, err)
	}
}
