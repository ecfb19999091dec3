package mutate

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// reflinking is a world whose store can make forks.
func reflinking(t *testing.T) *world {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Reflink, fixtures.Tools)
	w := newWorld(t)
	s, err := store.Open(t.Context(), filepath.Join(fixtures.ReflinkDir(t), "store"), func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	w.Store = s
	return w
}

// The ext4 filesystem of the first root of the layout two-roots, as debugfs takes it.
const firstRoot = "?offset=1048576"

// oneRoot is two-roots without an operating system in the second.
func oneRoot(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.raw")
	fixtures.Clone(t, fixtures.Image(t, "two-roots"), path)
	fixtures.Program(t, "cd usr/bin\nwrite /bin/sh sh\n", "debugfs", "-w", "-f", "-", path+firstRoot)
	fixtures.Program(t, "rm etc/os-release\nrm usr/lib/os-release\n", "debugfs", "-w", "-f", "-", path+"?offset=68157440")
	return path
}

// TestJournalsDecide: what the system mounts is what its fstab says once the journal,
// in which that is, has been replayed. The base stays as it is.
func TestJournalsDecide(t *testing.T) {
	w := reflinking(t)
	path, dir := oneRoot(t), t.TempDir()
	second := strings.TrimSpace(fixtures.Program(t, "", "sfdisk", "--part-uuid", path, "2"))
	journaled := "PARTUUID=" + second + " /home ext4 defaults 0 2\n"
	writeFile(t, filepath.Join(dir, "old"), strings.Repeat("#", len(journaled)-1)+"\n")
	writeFile(t, filepath.Join(dir, "new"), journaled+strings.Repeat("\x00", 4096-len(journaled)))
	block := fixtures.Program(t, fmt.Sprintf("rm etc/fstab\nwrite %s/old etc/fstab\nblocks etc/fstab\n", dir),
		"debugfs", "-w", "-f", "-", path+firstRoot)
	lines := strings.Fields(block)
	said := fixtures.Program(t, fmt.Sprintf("jo\njw -b %s %s/new\njc\n", lines[len(lines)-1], dir),
		"debugfs", "-w", "-f", "-", path+firstRoot)
	before := fixtures.Program(t, "", "sha256sum", path)

	b, err := w.Import(t.Context(), recipes.Base{Path: path}, "")
	if err != nil {
		t.Fatalf("%v (%s%s)", err, block, said)
	}
	if !slices.ContainsFunc(b.Layout.Mounts, func(m disk.Mounted) bool { return m.Mountpoint == "/home" && m.Slot == 2 }) {
		t.Errorf("the layout mounts %+v (%s%s)", b.Layout.Mounts, block, said)
	}
	told := func() bool {
		return slices.ContainsFunc(w.notes(), func(n string) bool { return strings.Contains(n, "in the journal of partition 1 (ext4).") })
	}
	if !told() {
		t.Error("nothing is said of the journal")
	}
	for _, file := range []string{path, w.Catalog().BaseFile(b.Digest)} {
		if after := fixtures.Program(t, "", "sha256sum", file); after[:64] != before[:64] {
			t.Errorf("%s has changed", file)
		}
	}
	b.Judged = "by an older imgmut"
	if _, err := w.findings(t.Context(), b); err != nil || !told() {
		t.Errorf("judged anew: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(w.Store.Root(), "tmp", "*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %q, %v", left, err)
	}
}

// TestImportOfRunningMachines: a snapshot of each filesystem is a base.
func TestImportOfRunningMachines(t *testing.T) {
	w := reflinking(t)
	for fs, layout := range map[string]string{"ext4": "live-ext4", "xfs": "live-xfs", "btrfs": "live-btrfs"} {
		b, err := w.Import(t.Context(), recipes.Base{Path: fixtures.Image(t, layout)}, "")
		if err != nil {
			t.Errorf("%s: %v", layout, err)
			continue
		}
		if notes := strings.Join(w.notes(), "\n"); b.Layout.OS != "debian 12" || strings.Count(notes, "("+fs+")") != 1 {
			t.Errorf("%s holds %q, notes %q", layout, b.Layout.OS, notes)
		}
	}
	_, err := w.Import(t.Context(), recipes.Base{Path: fixtures.Image(t, "debian-12")}, "")
	if err != nil || strings.Contains(strings.Join(w.notes(), " "), "journal") {
		t.Errorf("one that was shut down: %v", err)
	}
}

// TestNewerFilesystems are refused before anything is copied.
func TestNewerFilesystems(t *testing.T) {
	w := reflinking(t)
	path := oneRoot(t)
	fixtures.Program(t, "feature FEATURE_C20\n", "debugfs", "-w", "-f", "-", path+firstRoot)
	_, err := w.Import(t.Context(), recipes.Base{Path: path}, "")
	if fault.Of(err) != fault.Host || !strings.Contains(err.Error(), "partition 1 (ext4) has features") ||
		!strings.Contains(err.Error(), "FEATURE_C20") || !strings.Contains(fault.Mend(err), "newer e2fsprogs") {
		t.Errorf("%v (%s)", err, fault.Mend(err))
	}
	if bases, err := os.ReadDir(w.Store.Path(store.Bases, "", "")); err == nil && len(bases) > 0 {
		t.Errorf("there are bases: %v", bases)
	}
}

// TestFoundInWords: what an import says that it found.
func TestFoundInWords(t *testing.T) {
	l := &disk.Layout{Table: disk.GPT, OS: "debian 12", Arch: "x86-64", Volumes: []disk.Volume{{Slot: 2, Role: disk.Root, FS: "ext4"}}}
	for _, tc := range []struct {
		table disk.TableKind
		is    []string
		want  string
	}{
		{disk.GPT, nil, "debian 12 for x86-64, 2 GiB with a GPT, root ext4 in partition 2"},
		{disk.MBR, []string{"qcow2"}, "debian 12 for x86-64, 2 GiB with an MBR, root ext4 in partition 2; qcow2"},
		{disk.GPT, []string{"xz", "qcow2"}, "debian 12 for x86-64, 2 GiB with a GPT, root ext4 in partition 2; qcow2 in xz"},
	} {
		l.Table = tc.table
		if got := (&looked{layout: l}).words(2<<30, tc.is); got != tc.want {
			t.Errorf("%q, want %q", got, tc.want)
		}
	}
	bare := &looked{layout: &disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Role: disk.Root, FS: "xfs"}}}}
	if got := bare.words(1<<30, nil); got != "a system that does not say its name, 1 GiB, root is xfs, with no partitions" {
		t.Errorf("%q", got)
	}
}
