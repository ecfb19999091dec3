package fork

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
)

// partitioned makes an image of 64 MiB with the table that sfdisk makes of a
// script.
func partitioned(t *testing.T, script string) string {
	t.Helper()
	img := filepath.Join(t.TempDir(), "disk.raw")
	writeFile(t, img, "")
	if err := os.Truncate(img, 64<<20); err != nil {
		t.Fatal(err)
	}
	program(t, script, "sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", img)
	return img
}

// copyOf is a fork of an image.
func copyOf(t *testing.T, img string) string {
	t.Helper()
	fork := filepath.Join(t.TempDir(), "fork.raw")
	fixtures.Clone(t, img, fork)
	return fork
}

// layoutOf is what the table of an image says.
func layoutOf(t *testing.T, img string) *disk.Layout {
	t.Helper()
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l, err := disk.List(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func tableOf(t *testing.T, img string) *gpt.Table {
	t.Helper()
	f, err := os.Open(img)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := gpt.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// rooted is partitioned, with a small system in the first partition.
func rooted(t *testing.T, script string) string {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	img, tree := partitioned(t, script), t.TempDir()
	for name, text := range map[string]string{"etc/os-release": "ID=test\n", "etc/fstab": "", "bin/sh": machine} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(tree, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(tree, name), text)
	}
	program(t, "", "mke2fs", "-q", "-t", "ext4", "-d", tree, "-E", "offset=1048576", img, "8M")
	return img
}

// machine is the start of a program for x86-64 (elf(5)), which tells that of a system.
const machine = "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00"

// TestTypesOfAFinishedImage: what is in a partition counts, not what it says it is.
func TestTypesOfAFinishedImage(t *testing.T) {
	table := &gpt.Table{}
	l := &disk.Layout{Arch: "x86-64"}
	cases := []struct {
		role       disk.Role
		base, want uuid.UUID
	}{
		{disk.Root, gpt.TypeLinuxGeneric, gpt.TypeRootX86_64},
		{disk.Root, gpt.TypeRootX86_64, uuid.Nil}, // as it is
		{disk.Usr, gpt.TypeLinuxGeneric, gpt.TypeUsrX86_64},
		{disk.Boot, gpt.TypeLinuxGeneric, gpt.TypeXBOOTLDR},
		{disk.Home, gpt.TypeSrv, gpt.TypeHome},
		{disk.Srv, gpt.TypeLinuxGeneric, gpt.TypeSrv},
		{disk.Var, gpt.TypeHome, gpt.TypeVar},
		{disk.ESP, gpt.TypeESP, uuid.Nil},
		{"", gpt.TypeRootX86_64, uuid.Nil},
		{disk.Swap, gpt.TypeLinuxGeneric, uuid.Nil},
	}
	want := map[int]uuid.UUID{}
	for i, tc := range cases {
		l.Volumes = append(l.Volumes, disk.Volume{Slot: i + 1, Role: tc.role})
		table.Partitions = append(table.Partitions, gpt.Partition{Slot: i + 1, Type: tc.base})
		if tc.want != uuid.Nil {
			want[i+1] = tc.want
		}
	}
	got, keeps, err := discoverable(l, table, nil)
	if diff := cmp.Diff(want, got); diff != "" || keeps || err != nil {
		t.Errorf("types (-want +got), kept %t, %v:\n%s", keeps, err, diff)
	}

	// A system that makes partitions of one of these types would make another.
	repart := fstest.MapFS{"usr/lib/repart.d/50-root.conf": {Data: []byte("[Partition]\nType = linux-generic\n")},
		"etc/repart.d/x.conf": {Data: []byte("Type=" + gpt.TypeSrv.String() + "\n")}}
	got, keeps, err = discoverable(l, table, repartTypes(repart))
	if diff := cmp.Diff(map[int]uuid.UUID{7: gpt.TypeVar}, got); diff != "" || !keeps || err != nil {
		t.Errorf("with its own definitions: types (-want +got), kept %t, %v:\n%s", keeps, err, diff)
	}
}

// TestTypesOfRootGoByTheMachine: systemd looks for its own architecture.
func TestTypesOfRootGoByTheMachine(t *testing.T) {
	for _, tc := range []struct {
		role disk.Role
		arch string
		want uuid.UUID // none if it cannot be
	}{
		{disk.Root, "x86-64", gpt.TypeRootX86_64},
		{disk.Root, "arm64", gpt.TypeRootARM64},
		{disk.Root, "riscv64", uuid.Nil},
		{disk.Usr, "x86-64", gpt.TypeUsrX86_64},
		{disk.Usr, "arm64", gpt.TypeUsrARM64},
		{disk.Usr, "riscv64", uuid.Nil},
	} {
		l := &disk.Layout{Arch: tc.arch, Volumes: []disk.Volume{{Slot: 1, Role: tc.role}}}
		got, _, err := discoverable(l, &gpt.Table{Partitions: []gpt.Partition{{Slot: 1}}}, nil)
		if tc.want == uuid.Nil {
			if err == nil || !strings.Contains(err.Error(), tc.arch) {
				t.Errorf("%s of %s: error %v, want one that names it", tc.role, tc.arch, err)
			}
			continue
		}
		if err != nil || got[1] != tc.want {
			t.Errorf("%s of %s: type %s, %v, want %s", tc.role, tc.arch, got[1], err, tc.want)
		}
	}
}

// mbrScript has a root that is not active, an active partition, a swap, and a
// logical home.
const mbrScript = `label: dos
label-id: 0x5ec0ffee
size=8MiB, type=8e
size=4MiB, type=83, bootable
size=4MiB, type=82
type=5
size=4MiB, type=83
`

// types is what sfdisk says of a DOS table: the type of each partition in
// order, with a star where it is active.
func types(t *testing.T, img string) string {
	t.Helper()
	var all []string
	for line := range strings.Lines(program(t, "", "sfdisk", "--dump", img)) {
		if _, kind, ok := strings.Cut(strings.TrimSpace(line), "type="); ok {
			all = append(all, strings.Replace(kind, ", bootable", "*", 1))
		}
	}
	return strings.Join(all, " ")
}

// TestBareFilesystemIsLeftAlone: there is no table to identify.
func TestBareFilesystemIsLeftAlone(t *testing.T) {
	img := filepath.Join(t.TempDir(), "bare.raw")
	writeFile(t, img, "a filesystem")
	bare := &disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Role: disk.Root}}}
	if err := identifyOpen(t, img, nil, bare, Wanted{}.Derive(bare, "key", "name")); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(img); string(b) != "a filesystem" {
		t.Errorf("it is %q now: %v", b, err)
	}
}

// gptImage is an ordinary image, changed.
func gptImage(change func(l *disk.Layout)) *disk.Layout {
	l := &disk.Layout{Table: disk.GPT, Arch: "x86-64", Volumes: []disk.Volume{
		{Slot: 1, Role: disk.Root, Mountpoint: "/", FS: "ext4",
			Type: gpt.TypeRootX86_64.String(), PartUUID: "AAAAAAAA-0000-0000-0000-000000000001"},
		{Slot: 2, Role: disk.Home, Mountpoint: "/home", FS: "xfs",
			Type: gpt.TypeHome.String(), PartUUID: "aaaaaaaa-0000-0000-0000-000000000002"},
		{Slot: 15, Role: disk.ESP, FS: "vfat", Type: gpt.TypeESP.String(), PartUUID: "aaaaaaaa-0000-0000-0000-00000000000f"},
	}}
	if change != nil {
		change(l)
	}
	return l
}

func dosImage(change func(l *disk.Layout)) *disk.Layout {
	l := &disk.Layout{Table: disk.MBR, Arch: "x86-64", Volumes: []disk.Volume{
		{Slot: 1, Role: disk.Boot, Mountpoint: "/boot", FS: "ext4", PartUUID: "5ec0ffee-01"},
		{Slot: 2, Role: disk.Root, Mountpoint: "/", FS: "ext4", PartUUID: "5ec0ffee-02"},
		{Slot: 5, FS: "ext4", PartUUID: "5ec0ffee-05"},
	}}
	if change != nil {
		change(l)
	}
	return l
}

// TestWhatIsRefusedAtImport is about images that could be changed, but not into
// what a recipe asks for.
func TestWhatIsRefusedAtImport(t *testing.T) {
	for _, tc := range []struct {
		name   string
		layout *disk.Layout
		want   string // in the message; accepted if empty
	}{
		{"an ordinary image", gptImage(nil), ""},
		{"an ordinary image with a DOS table", dosImage(nil), ""},
		{"one filesystem", &disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Role: disk.Root, FS: "ext4"}}}, ""},
		{"partitions without a GUID", gptImage(func(l *disk.Layout) {
			l.Volumes[0].PartUUID, l.Volumes[1].PartUUID = "", ""
		}), ""},
		{"two of one GUID, one in capitals",
			gptImage(func(l *disk.Layout) { l.Volumes[1].PartUUID = strings.ToLower(l.Volumes[0].PartUUID) }),
			"partitions 1 and 2 both have the unique GUID"},
		{"hashes of root by type", gptImage(func(l *disk.Layout) {
			l.Volumes[1].Type = gpt.TypeRootVerityX86_64.String()
		}), "dm-verity"},
		{"by type in capitals", gptImage(func(l *disk.Layout) {
			l.Volumes[1].Type = strings.ToUpper(gpt.TypeUsrVeritySigARM64.String())
		}), "dm-verity"},
		{"hashes by what is in them", gptImage(func(l *disk.Layout) { l.Volumes[1].FS = "DM_verity_hash" }), "dm-verity"},
		{"root in a logical partition",
			dosImage(func(l *disk.Layout) { l.Volumes[1].Role, l.Volumes[2].Role = "", disk.Root }), ""},
	} {
		err := CheckSupported(tc.layout)
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s is refused: %v", tc.name, err)
		case tc.want != "" && (fault.Of(err) != fault.Image || !strings.Contains(err.Error(), tc.want)):
			t.Errorf("%s: error %v, want one that says %q", tc.name, err, tc.want)
		case tc.want != "" && fault.Mend(err) == "":
			t.Errorf("%s: no mend is given", tc.name)
		}
	}
}

// TestEveryTypeOfHashesIsRefused: they are of no use once what they are of has
// changed.
func TestEveryTypeOfHashesIsRefused(t *testing.T) {
	for _, kind := range []uuid.UUID{
		gpt.TypeRootVerityX86_64, gpt.TypeRootVerityARM64, gpt.TypeUsrVerityX86_64, gpt.TypeUsrVerityARM64,
		gpt.TypeRootVeritySigX86_64, gpt.TypeRootVeritySigARM64, gpt.TypeUsrVeritySigX86_64, gpt.TypeUsrVeritySigARM64,
	} {
		if err := CheckSupported(gptImage(func(l *disk.Layout) { l.Volumes[1].Type = kind.String() })); err == nil {
			t.Errorf("type %s is accepted", kind)
		}
	}
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// program runs a program that is asked for a second opinion.
func program(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	fixtures.Require(t, fixtures.Tools)
	return fixtures.Program(t, stdin, name, args...)
}
