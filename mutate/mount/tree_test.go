package mount_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/thread"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// TestMain is also the program of a guest's unit, and what it executes.
func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == "become" {
		err := mount.Become(os.Args[2], os.Args[3:])
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(7)
	}
	os.Exit(m.Run())
}

// mountTable is what a process sees whose root is that of the tree.
func mountTable(t *testing.T, tree *mount.Tree) string {
	t.Helper()
	proc, err := os.Open("/proc") // of the machine, which the tree has not
	if err != nil {
		t.Fatal(err)
	}
	defer proc.Close()
	var out []byte
	thread.Own(func() {
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			return
		}
		if err = unix.Setns(tree.Namespace(), unix.CLONE_NEWNS); err != nil {
			return
		}
		var fd int
		if fd, err = unix.Openat(int(proc.Fd()), "thread-self/mountinfo", unix.O_RDONLY|unix.O_CLOEXEC, 0); err == nil {
			f := os.NewFile(uintptr(fd), "mountinfo")
			out, err = io.ReadAll(f)
			f.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestAssemble(t *testing.T) {
	f, o := partitioned(t, 0)
	d := attached(t, f, o)
	mounts := mounted(t, d, mount.Request{Slot: 1, FS: "ext4"}, mount.Request{Slot: 15, FS: "ext4"})
	before := machineMounts(t)
	tree, err := mount.Assemble([]mount.Place{
		{At: "/", Mount: mounts[0]}, {At: "/inner", Mount: mounts[1]},
		{At: "/other", Bind: "/inner/inner"}, {At: "/inner/other", Sealed: "nobody writes here"},
		{At: "/missing/place", Sealed: "no"},
	})
	if err != nil {
		t.Fatal(err)
	}
	if machineMounts(t) != before {
		t.Error("the machine sees the mounts")
	}
	for name, want := range map[string]string{
		"name": "vda1", "inner/name": "vda15", "inner/other/README.imgmut": "nobody writes here\n",
	} {
		if got := readBelow(t, tree.Root, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if err := unix.Mkdirat(int(tree.Root.Fd()), "other/made", 0o755); err != nil {
		t.Error(err)
	}
	if err := unix.Faccessat(int(mounts[1].Fd()), "inner/made", unix.F_OK, 0); err != nil {
		t.Errorf("what is made in a bound directory is not in the other: %v", err)
	}
	if err := unix.Mkdirat(int(tree.Root.Fd()), "inner/other/made", 0o755); !errors.Is(err, unix.EROFS) {
		t.Errorf("a sealed place can be written to: %v", err)
	}
	if len(tree.Missing) != 1 || tree.Missing[0].At != "/missing/place" {
		t.Errorf("missing are %+v", tree.Missing)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	for _, m := range mounts {
		m.Close()
	}
	d.Close()
	if err := mount.WaitReleased(t.Context(), f.Name()); err != nil {
		t.Error(err)
	}
}

// TestBind: what is mounted below a directory is shown with it only if that is asked for.
func TestBind(t *testing.T) {
	f, o := partitioned(t, 0)
	mounts := mounted(t, attached(t, f, o), mount.Request{Slot: 1, FS: "ext4"}, mount.Request{Slot: 15, FS: "ext4"})
	for _, recursive := range []bool{false, true} {
		tree, err := mount.Assemble([]mount.Place{
			{At: "/", Mount: mounts[0]}, {At: "/inner", Mount: mounts[1]},
			{At: "/inner/inner", Bind: "/", Recursive: recursive},
		})
		if err != nil {
			t.Fatal(err)
		}
		err = unix.Faccessat(int(tree.Root.Fd()), "inner/inner/inner/name", unix.F_OK, 0)
		if shown := err == nil; shown != recursive {
			t.Errorf("recursive %t: the other volume is shown: %t", recursive, shown)
		}
		tree.Close()
		if !recursive {
			mounts = mounted(t, attached(t, f, o), mount.Request{Slot: 1, FS: "ext4"}, mount.Request{Slot: 15, FS: "ext4"})
		}
	}
}

// TestPartitionThatIsAnother: the kernel's own partitions must be those that are meant.
func TestPartitionThatIsAnother(t *testing.T) {
	f, o := partitioned(t, 0)
	o.Partitions = append(o.Partitions, o.Partitions[0])
	attached(t, f, o) // twice the same is no harm
	o.Partitions[len(o.Partitions)-1].Size -= 512
	if d, err := mount.AttachDisk(f, o); err == nil {
		d.Close()
		t.Error("one number has two ranges")
	} else if !strings.Contains(err.Error(), "reads the partition table otherwise") {
		t.Error(err)
	}
}

func machineMounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestHandover: the program of a unit gets mounts and what it reads, makes the tree
// where only it sees it, and becomes another program.
func TestHandover(t *testing.T) {
	f, o := partitioned(t, 0)
	d := attached(t, f, o)
	users := mount.GuestUsers("one")
	ns, err := users.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	mounts := mounted(t, d, mount.Request{Slot: 1, FS: "ext4", Programs: true, Users: ns}, mount.Request{Slot: 15, FS: "ext4", Users: ns})
	places := []mount.Place{{At: "/", Mount: mounts[0]}, {At: "/new/place", Mount: mounts[1]}, {At: "/inner", Sealed: "why"},
		{At: "/bound", Bind: "/other/made"}}

	dir := filepath.Join(t.TempDir(), "tree")
	const script = `cat; cat "$1/new/place/name" "$1/inner/README.imgmut"; stat -c %u:%g "$1" "$1/new" "$1/other/made"
ls -A "$1/inner"; : > "$1/bound/file"; ls "$1/other/made"`
	out, err := become(t, mount.Handover{Places: places, Owner: users.Shift}, dir, "sh", "-euc", script, "sh", dir)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	owner := strings.Repeat(strconv.Itoa(int(users.Shift))+":"+strconv.Itoa(int(users.Shift))+"\n", 3)
	if want := "what it reads\nvda15why\n" + owner + "README.imgmut\nfile\n"; out != want {
		t.Errorf("it says %q, want %q", out, want)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) > 0 {
		t.Errorf("the machine sees %v in the directory: %v", list, err)
	}
	// On the disk, all is root's.
	for _, m := range mounts {
		m.Close()
	}
	plain := mounted(t, d, mount.Request{Slot: 1, FS: "ext4"})[0]
	var st unix.Stat_t
	if err := unix.Fstatat(int(plain.Fd()), "new", &st, 0); err != nil || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("the directory that was missing is of user %d and group %d, %v", st.Uid, st.Gid, err)
	}
}

// become hands over to a child that becomes argv, which reads a line.
func become(t *testing.T, h mount.Handover, dir string, argv ...string) (string, error) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer theirs.Close()
	stdin, line, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	line.WriteString("what it reads\n")
	line.Close()
	h.Stdin = stdin
	if err := h.Send(ours); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	stdin.Close()
	if argv[0], err = exec.LookPath(argv[0]); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"become", dir}, argv...)...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs, &out, &out
	err = cmd.Run()
	return out.String(), err
}

// TestHandoverThatIsNone: what comes must be whole.
func TestHandoverThatIsNone(t *testing.T) {
	for name, tc := range map[string]struct {
		places []mount.Place // below a root, if the first is nowhere
		want   string
	}{
		"nothing":           {nil, "no root"},
		"no root":           {[]mount.Place{{At: "/", Sealed: "x"}}, "no root"},
		"a bind of no path": {[]mount.Place{{}, {At: "/inner", Bind: "/name/below"}}, "bind /name/below: open /name/below: not a directory"},
		"a file in between": {[]mount.Place{{}, {At: "/name/below", Sealed: "x"}}, "open /name/below: not a directory"},
	} {
		if len(tc.places) > 0 && tc.places[0].At == "" {
			tc.places[0] = rootPlace(t)
		}
		out, err := become(t, mount.Handover{Places: tc.places}, filepath.Join(t.TempDir(), "tree"), "echo", "became it")
		if err == nil || !strings.Contains(out, tc.want) || strings.Contains(out, "became") {
			t.Errorf("%s: %v, %q, want %q", name, err, out, tc.want)
		}
	}
}

// TestHandoverStaysInside: a place is below the root, whatever its path says.
func TestHandoverStaysInside(t *testing.T) {
	root := rootPlace(t)
	outside := t.TempDir()
	places := []mount.Place{root, {At: "/../.." + outside + "/x", Sealed: "x"}}
	out, err := become(t, mount.Handover{Places: places}, filepath.Join(t.TempDir(), "tree"), "echo", "became it")
	if err != nil {
		t.Errorf("%v, %s", err, out)
	}
	if _, err := os.Lstat(filepath.Join(outside, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the machine has it: %v", err)
	}
	if err := unix.Faccessat(int(root.Mount.Fd()), "."+outside+"/x", unix.F_OK, 0); err != nil {
		t.Errorf("the tree has it not: %v", err)
	}
}

// rootPlace is a mount for the root: it can be attached once.
func rootPlace(t *testing.T) mount.Place {
	t.Helper()
	f, o := partitioned(t, 0)
	return mount.Place{At: "/", Mount: mounted(t, attached(t, f, o), mount.Request{Slot: 1, FS: "ext4"})[0]}
}

// TestGuestUsers: ids of any size have a place, the machine's users none, and two
// guests differ. The group of terminals, 5, has a place that has 31 bits.
func TestGuestUsers(t *testing.T) {
	const lastOfDirectory = 2_000_200_000 // as sssd counts them
	seen := map[uint32]bool{}
	for _, name := range []string{"a", "b", "imgmut-0123456789ab", ""} {
		u := mount.GuestUsers(name)
		seen[u.Shift] = true
		if u.Shift <= lastOfDirectory || u.Shift+5 >= 1<<31 || u.Shift%65536 != 0 || u.Size <= lastOfDirectory ||
			uint64(u.Shift)+uint64(u.Size) > 1<<32-2 {
			t.Errorf("%q: %+v", name, u)
		}
	}
	if len(seen) != 4 {
		t.Errorf("four guests have %d roots", len(seen))
	}
}

// TestUsersOfAMount: owners are translated both ways, whatever their number.
func TestUsersOfAMount(t *testing.T) {
	f, o := partitioned(t, 0)
	d := attached(t, f, o)
	users := mount.GuestUsers("x")
	ns, err := users.Namespace()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	both := mounted(t, d, mount.Request{Slot: 1, FS: "ext4", Users: ns}, mount.Request{Slot: 1, FS: "ext4"})
	const id = 1_500_000_000
	if err := unix.Fchownat(int(both[1].Fd()), "name", id, id+1, 0); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(both[0].Fd()), "name", &st, 0); err != nil || st.Uid != users.Shift+id || st.Gid != users.Shift+id+1 {
		t.Errorf("owner %d:%d in the guest, %v; want %d and one more", st.Uid, st.Gid, err, users.Shift+id)
	}
	if mode := fs.FileMode(st.Mode).Perm(); mode != 0o644 {
		t.Errorf("mode %v", mode)
	}
}
