package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/machined"
)

// lab is a place to run imgmut in: a store on a filesystem that reflinks.
type lab struct {
	t      *testing.T
	store  string
	prefix []string // of every command line
}

func newLab(t *testing.T) *lab {
	fixtures.Require(t, fixtures.Root, fixtures.Reflink, fixtures.Systemd, fixtures.Tools)
	return &lab{t: t, store: filepath.Join(fixtures.ReflinkDir(t), "store")}
}

// command is imgmut, as the test binary plays it (see TestMain).
func (l *lab) command(args ...string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		l.t.Fatal(err)
	}
	// A name by which TestMain knows what to be, also behind a prefix.
	link := filepath.Join(l.t.TempDir(), "imgmut")
	if err := os.Symlink(exe, link); err != nil {
		l.t.Fatal(err)
	}
	argv := append(slices.Clone(l.prefix), append([]string{link, "--store", l.store, "--progress", "plain"}, args...)...)
	return exec.Command(argv[0], argv[1:]...)
}

// run runs imgmut and wants an exit status.
func (l *lab) run(want int, args ...string) (stdout, stderr string) {
	l.t.Helper()
	cmd := l.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if got := cmd.ProcessState.ExitCode(); got != want {
		l.t.Fatalf("imgmut %q: %v, want status %d\n%s", args, err, want, &errs)
	}
	return out.String(), errs.String()
}

func (l *lab) recipe(text string) string {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), "recipe.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		l.t.Fatal(err)
	}
	return file
}

// wantClean fails if anything is left of a run.
func (l *lab) wantClean() {
	l.t.Helper()
	var left []string
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if left = leftovers(l.store); len(left) == 0 {
			return
		}
	}
	l.t.Errorf("left over: %q", left)
}

// facts are all that is to be known of each file of an image, as the kernel
// shows them, below the number of its partition.
func facts(t *testing.T, image string) map[string]string {
	t.Helper()
	table, err := exec.Command("sfdisk", "--json", image).Output()
	if err != nil { // it is one filesystem
		return volumeFacts(t, image, 0, "")
	}
	var disk struct {
		PartitionTable struct {
			Partitions []struct{ Start, Size int64 }
		}
	}
	if err := json.Unmarshal(table, &disk); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for i, p := range disk.PartitionTable.Partitions {
		maps.Copy(all, volumeFacts(t, image, p.Start*512, fmt.Sprintf("%d:", i+1)))
	}
	return all
}

// volumeFacts are the facts of the filesystem at an offset.
func volumeFacts(t *testing.T, image string, offset int64, prefix string) map[string]string {
	t.Helper()
	kind, err := exec.Command("blkid", "--probe", "--offset", fmt.Sprint(offset),
		"--output", "value", "--match-tag", "TYPE", image).Output()
	if err != nil {
		return nil // a partition without a filesystem
	}
	mnt := t.TempDir()
	if strings.TrimSpace(string(kind)) == "vfat" { // which the kernel may lack
		volume := fmt.Sprintf("%s@@%d", image, offset)
		if out, err := exec.Command("mcopy", "-s", "-m", "-i", volume, "::", mnt).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	} else {
		options := fmt.Sprintf("ro,loop,offset=%d", offset)
		if out, err := exec.Command("mount", "-o", options, image, mnt).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		defer func() {
			if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		}()
	}
	all := map[string]string{}
	err = filepath.WalkDir(mnt, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fact, err := fact(path, d)
		all[prefix+strings.TrimPrefix(path, mnt)] = fact
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func fact(path string, d fs.DirEntry) (string, error) {
	fi, err := d.Info()
	if err != nil {
		return "", err
	}
	st := fi.Sys().(*syscall.Stat_t)
	s := fmt.Sprintf("%o %d:%d rdev %d links %d", st.Mode, st.Uid, st.Gid, st.Rdev, st.Nlink)
	list := make([]byte, 4096)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return "", err
	}
	for attr := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		value := make([]byte, 4096)
		n, _ := unix.Lgetxattr(path, attr, value)
		s += fmt.Sprintf(" %s=%x", attr, value[:max(n, 0)])
	}
	switch d.Type() {
	case fs.ModeSymlink:
		link, err := os.Readlink(path)
		return s + " to " + link, err
	case 0:
		b, err := os.ReadFile(path)
		return fmt.Sprintf("%s at %s: %x", s, fi.ModTime(), sha256.Sum256(b)), err
	}
	return s, nil
}

// TestOnlyWhatTheRecipeDid: the image differs from its base by what the recipe
// says, and in nothing else: not in the droppings of systemd-nspawn, nor in
// what the network of a step needed.
func TestOnlyWhatTheRecipeDid(t *testing.T) {
	l := newLab(t)
	withLink := filepath.Join(filepath.Dir(l.store), "link.raw")
	fixtures.Clone(t, fixtures.Image(t, "bare"), withLink)
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver 192.0.2.1\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	// changed is a copy of it with another resolv.conf.
	changed := func(name string, requests ...string) string {
		image := filepath.Join(filepath.Dir(l.store), name)
		fixtures.Clone(t, withLink, image)
		for _, r := range append([]string{"rm /etc/resolv.conf"}, requests...) {
			if out, err := exec.Command("debugfs", "-w", "-R", r, image).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		return image
	}
	write := "write " + resolv + " /etc/resolv.conf"
	for _, tc := range []struct {
		name, base string
		want       []string // changed files
	}{
		{"resolv.conf is a link into /run", withLink, []string{"/etc/motd"}},
		{"no resolv.conf", changed("without.raw"), []string{"/etc/motd"}},
		{"resolv.conf is a file", changed("file.raw", write), []string{"/etc/motd"}},
		// 0x10 is EXT4_IMMUTABLE_FL, 0x80000 EXT4_EXTENTS_FL.
		{"resolv.conf is immutable", changed("immutable.raw", write, "set_inode_field /etc/resolv.conf flags 0x80010"),
			[]string{"/etc/motd"}},
		// What names a partition follows it; the rest of the ESP and of /boot stays.
		{"with an ESP", fixtures.Image(t, "debian-12"),
			[]string{"1:/loader/entries/debian.conf", "2:/etc/fstab", "2:/etc/motd"}},
		{"with an ESP and /boot", fixtures.Image(t, "bib"), []string{"4:/etc/motd"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := facts(t, tc.base)
			out, _ := l.run(0, "apply", "--replace", l.recipe(`version: 1
name: only
base: `+tc.base+`
steps:
  - write: {path: /etc/motd, content: "x\n"}
  - {run: grep -q nameserver /etc/resolv.conf, network: true}
verify:
  - file: /etc/motd
`))
			after := facts(t, strings.TrimSpace(out))
			var changed []string
			for name := range after {
				if before[name] != after[name] {
					changed = append(changed, name)
				}
			}
			for name := range before {
				if _, ok := after[name]; !ok {
					changed = append(changed, "-"+name)
				}
			}
			slices.Sort(changed)
			if !slices.Equal(changed, tc.want) {
				t.Errorf("changed: %q, want %q", changed, tc.want)
			}
		})
	}
}

// TestReferencesFollow: the new partition UUIDs are in fstab and in the loader
// entry on the ESP, which the kernel cannot mount.
func TestReferencesFollow(t *testing.T) {
	l := newLab(t)
	base := fixtures.Image(t, "debian-12")
	out, _ := l.run(0, "apply", l.recipe("version: 1\nname: refs\nbase: "+base+"\nsteps: []\n"))
	image := strings.TrimSpace(out)
	guid := func(file string) string {
		b, err := exec.Command("sh", "-c", "sfdisk --part-uuid "+file+" 2").Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.ToLower(strings.TrimSpace(string(b)))
	}
	was, is := guid(base), guid(image)
	if was == is {
		t.Fatalf("partition 2 still has %s", was)
	}
	for _, where := range []string{
		"debugfs -R 'cat /etc/fstab' '" + image + "?offset='$((512*$(partx --nr 2 --noheadings --output START " + image + ")))",
		"mtype -i " + image + "@@1M ::/loader/entries/debian.conf",
	} {
		b, err := exec.Command("sh", "-c", where).CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v: %s", where, err, b)
		}
		text := strings.ToLower(string(b))
		if strings.Contains(text, was) || !strings.Contains(text, "partuuid="+is) {
			t.Errorf("%s:\n%swant PARTUUID=%s", where, b, is)
		}
	}
}

// TestStoreFull: a step that writes more than the store can hold fails, though
// the step itself saw no error; nothing is committed, nothing left.
func TestStoreFull(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Reflink, fixtures.Systemd)
	dir := t.TempDir()
	small := filepath.Join(dir, "small.xfs")
	mnt := filepath.Join(dir, "mnt")
	script := `truncate -s 1G "$1" && mkfs.xfs -q -m reflink=1,rmapbt=0 "$1" && mkdir "$2" && mount -o loop "$1" "$2"`
	if out, err := exec.Command("sh", "-euc", script, "sh", small, mnt).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	l := &lab{t: t, store: filepath.Join(mnt, "store")}
	base := fixtures.Image(t, "debian-12")
	l.run(0, "import", base, "base")
	recipe := l.recipe("version: 1\nname: full\nbase: base\n" +
		"steps:\n  - run: head -c 900000000 /dev/urandom > /var/tmp/big\n")
	_, stderr := l.run(4, "apply", recipe)
	if !strings.Contains(stderr, "lost on the way to the store") ||
		!strings.Contains(stderr, "hint: make room with imgmut gc") {
		t.Errorf("stderr:\n%s", stderr)
	}
	l.wantClean()
	// And it goes on when there is room again, here because the step is smaller.
	l.run(0, "apply", "--set", "steps[0].run=head -c 9000000 /dev/urandom > /var/tmp/big", recipe)
	l.wantClean()

	// Not even the base fits.
	if err := os.RemoveAll(l.store); err != nil {
		t.Fatal(err)
	}
	fill := filepath.Join(mnt, "fill")
	if out, err := exec.Command("fallocate", "-l", "700M", fill).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_, stderr = l.run(4, "import", base, "base")
	if !strings.Contains(stderr, "the store is too full") {
		t.Errorf("stderr:\n%s", stderr)
	}
	l.wantClean()
}

// TestPool: a store on a filesystem that cannot reflink makes itself a pool,
// says so once, and finds it again when it is not mounted.
func TestPool(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	dir := fixtures.PlainDir(t)
	l := &lab{t: t, store: dir}
	pool := filepath.Join(dir, "pool")
	t.Cleanup(func() { exec.Command("umount", pool).Run() })
	base := fixtures.Image(t, "debian-12")
	_, stderr := l.run(0, "import", base, "base")
	if !strings.Contains(stderr, "cannot reflink: made "+dir+"/pool.xfs") {
		t.Fatalf("no pool was made:\n%s", stderr)
	}
	recipe := l.recipe("version: 1\nname: pooled\nbase: base\nsteps:\n  - run: date\n")
	out, stderr := l.run(0, "apply", recipe)
	if want := filepath.Join(pool, "images/pooled.raw") + "\n"; out != want || strings.Contains(stderr, "made") {
		t.Errorf("stdout %q, want %q; stderr:\n%s", out, want, stderr)
	}
	if out, err := exec.Command("umount", pool).CombinedOutput(); err != nil { // a reboot
		t.Fatalf("%v: %s", err, out)
	}
	// Two at once find one pool.
	first := l.command("ls")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	l.run(0, "apply", recipe)
	if err := first.Wait(); err != nil {
		t.Error(err)
	}
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), " "+pool+" "); n != 1 {
		t.Errorf("the pool is mounted %d times", n)
	}
}

// TestSystemHost runs imgmut where it finds a running systemd, as on a machine
// that booted with one.
func TestSystemHost(t *testing.T) {
	l := newLab(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	base := fixtures.Image(t, "debian-12")
	var log lockedBuffer
	h, err := machined.Open(t.Context(), machined.Options{
		Mode: machined.Private, Init: []string{exe, privateHostArg}, Log: &log,
		Paths: []string{exe, base, filepath.Dir(l.store), filepath.Dir(t.TempDir())},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	l.prefix = []string{"nsenter", "--target", strconv.Itoa(h.PID()), "--all", "--"}
	recipe := l.recipe("version: 1\nname: system\nbase: " + base +
		"\nsteps:\n  - run: \"true\"\n  - run: echo two\nverify:\n  - file: /etc/passwd\n")
	_, stderr := l.run(0, "--log-level", "info", "apply", recipe)
	if !strings.Contains(stderr, "mode=system") {
		t.Errorf("it did not use the running systemd:\n%s", stderr)
	}
	l.wantClean()
	wantUnitsEndedWell(t, log.String)
	// Killed in the middle of a step, it leaves no unit and no machine.
	slow := l.command("apply", "--set", "steps[1].run=echo begun; sleep 1000", recipe)
	var errs lockedBuffer
	slow.Stderr = &errs
	if err := slow.Start(); err != nil {
		t.Fatal(err)
	}
	if !within(20*time.Second, func() bool { return strings.Contains(errs.String(), "| begun") }) {
		t.Fatalf("the step does not begin:\n%s", errs.String())
	}
	// nsenter forks; what it runs is what has the store in its command line.
	if out, err := exec.Command("pkill", "-KILL", "-f", "imgmut --store "+l.store).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	slow.Wait()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		list := append(l.prefix[1:], "systemctl", "list-units", "--all", "--no-legend", "imgmut-*.service")
		units, _ := exec.Command(l.prefix[0], list...).Output()
		if len(bytes.TrimSpace(units)) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("units are left:\n%s", units)
		}
	}
	l.run(0, "apply", recipe)
	l.wantClean()
}

// TestUnits: a successful apply leaves no failed unit in a journal.
func TestUnits(t *testing.T) {
	l := newLab(t)
	recipe := l.recipe("version: 1\nname: units\nbase: " + fixtures.Image(t, "debian-12") +
		"\nsteps:\n  - run: \"true\"\nverify:\n  - file: /etc/passwd\n  - command: \"true\"\n")
	_, stderr := l.run(0, "--log-level", "debug", "--host", "private", "apply", recipe)
	wantUnitsEndedWell(t, func() string { return stderr })
}

// wantUnitsEndedWell looks in systemd's log, which may be a moment late, for the
// two guests of an apply: that of the steps and that of the assertions.
func wantUnitsEndedWell(t *testing.T, log func() string) {
	t.Helper()
	const well = ".service: Deactivated successfully"
	for deadline := time.Now().Add(5 * time.Second); strings.Count(log(), well) < 2 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	if n := strings.Count(log(), well); n != 2 || strings.Contains(log(), "Failed with result") {
		t.Errorf("%d units ended well, want 2 and no other:\n%s", n, log())
	}
}

// TestKilledWhileFrozen: a kill in the few milliseconds in which the guest's
// filesystem is frozen must not leave it so, with its loop device, for ever:
// the kernel would mount no other fork of that XFS, whatever store it is in.
func TestKilledWhileFrozen(t *testing.T) {
	l := newLab(t)
	other := &lab{t: t, store: l.store + "-other"}
	recipe := l.recipe("version: 1\nname: frozen\nbase: base\nsteps:\n  - run: " + frozenStep() + "\n")
	for _, layout := range []string{"bare", "xfs"} {
		base := fixtures.Image(t, layout)
		l.run(0, "import", base, "base")
		other.run(0, "import", base, "base")
		for _, next := range []*lab{l, other} {
			l.killFrozen(recipe)
			next.run(0, "apply", "--no-cache", "--set", "steps[0].run=true", recipe)
			l.run(0, "ls") // clears what is its own
			l.wantClean()
		}
	}
}

// frozenStep is a command that no other test runs on this machine meanwhile.
func frozenStep() string { return fmt.Sprintf("sleep 1%07d", os.Getpid()) }

// killFrozen begins the recipe and kills imgmut when the guest is frozen.
func (l *lab) killFrozen(recipe string) {
	l.t.Helper()
	cmd := l.command("apply", "--no-cache", recipe)
	var errs lockedBuffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		l.t.Fatal(err)
	}
	defer cmd.Process.Kill() // also where the test fails
	var pids []byte
	if !within(20*time.Second, func() bool {
		pids, _ = exec.Command("pgrep", "-x", "-f", frozenStep()).Output()
		return len(pids) > 0
	}) {
		l.t.Fatalf("the step does not begin:\n%s", errs.String())
	}
	root := "/proc/" + strings.Fields(string(pids))[0] + "/root"
	if out, err := exec.Command("fsfreeze", "--freeze", root).CombinedOutput(); err != nil {
		l.t.Fatalf("%v: %s", err, out)
	}
	cmd.Process.Kill()
	cmd.Wait()
}
