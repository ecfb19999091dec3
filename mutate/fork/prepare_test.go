package fork

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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

// layoutOf is what the table of an image says, with roles by slot.
func layoutOf(t *testing.T, img string, roles map[int]disk.Role) *disk.Layout {
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
	l.Arch = "x86-64"
	for i := range l.Volumes {
		l.Volumes[i].Role = roles[l.Volumes[i].Slot]
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

// partitionTypes says for every role what the type and the attribute bits of a
// partition are while steps run. In the finished image the bits are those of
// the base again, and the type stays.
var partitionTypes = []struct {
	role         disk.Role
	base, work   uuid.UUID
	before, bits uint64
}{
	{disk.Root, gpt.TypeLinuxGeneric, gpt.TypeRootX86_64, gpt.AttrGrowFS | 1<<2, 1 << 2},
	{disk.Usr, gpt.TypeLinuxGeneric, gpt.TypeUsrX86_64, gpt.AttrReadOnly, 0},
	{disk.Boot, gpt.TypeLinuxGeneric, gpt.TypeXBOOTLDR, 0, 0},
	{disk.Home, gpt.TypeHome, gpt.TypeHome, gpt.AttrNoAuto | gpt.AttrReadOnly | gpt.AttrGrowFS, 0},
	{disk.Srv, gpt.TypeLinuxGeneric, gpt.TypeSrv, 0, 0},
	{disk.Var, gpt.TypeHome, gpt.TypeVar, 0, 0}, // what is in it counts, not what it says it is
	// The guest is not to see the volumes of firmware.
	{disk.ESP, gpt.TypeESP, gpt.TypeESP, 1, 1 | gpt.AttrNoBlockIO},
	{disk.ESP, gpt.TypeESP, gpt.TypeESP, gpt.AttrNoBlockIO, gpt.AttrNoBlockIO},
	// A second root, or the home of another system, is not to be taken for the first.
	{"", gpt.TypeRootX86_64, gpt.TypeRootX86_64, 0, gpt.AttrNoAuto},
	{"", gpt.TypeHome, gpt.TypeHome, gpt.AttrNoAuto | gpt.AttrReadOnly, gpt.AttrNoAuto | gpt.AttrReadOnly},
	{disk.Swap, gpt.TypeLinuxGeneric, gpt.TypeLinuxGeneric, 0, gpt.AttrNoAuto},
}

func TestTableWhileStepsRunAndAfter(t *testing.T) {
	var script strings.Builder
	script.WriteString("label: gpt\n")
	roles, set := map[int]disk.Role{}, map[int]uint64{}
	for i, tc := range partitionTypes {
		fmt.Fprintf(&script, "size=4MiB, type=%s\n", tc.base)
		roles[i+1], set[i+1] = tc.role, tc.before
	}
	base := partitioned(t, script.String())
	change(t, base, gpt.Edit{Set: set})
	layout, before := layoutOf(t, base, roles), tableOf(t, base)

	work := copyOf(t, base)
	if err := Prepare(work, layout); err != nil {
		t.Fatal(err)
	}
	want := tableOf(t, base)
	for i, tc := range partitionTypes {
		want.Partitions[i].Type, want.Partitions[i].Attributes = tc.work, tc.bits
	}
	if diff := cmp.Diff(want, tableOf(t, work)); diff != "" {
		t.Errorf("while steps run (-want +got):\n%s", diff)
	}

	e, err := editFor(layout, before)
	if err != nil {
		t.Fatal(err)
	}
	change(t, work, e.finish)
	for i, tc := range partitionTypes {
		want.Partitions[i].Attributes = tc.before
	}
	if diff := cmp.Diff(want, tableOf(t, work)); diff != "" {
		t.Errorf("of the finished image (-want +got):\n%s", diff)
	}
}

func change(t *testing.T, img string, e gpt.Edit) {
	t.Helper()
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := gpt.Apply(f, e); err != nil {
		t.Fatal(err)
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
		base := partitioned(t, "label: gpt\nsize=4MiB\n")
		layout := layoutOf(t, base, map[int]disk.Role{1: tc.role})
		layout.Arch = tc.arch
		err := Prepare(base, layout)
		if tc.want == uuid.Nil {
			if err == nil || !strings.Contains(err.Error(), tc.arch) {
				t.Errorf("%s of %s: error %v, want one that names it", tc.role, tc.arch, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := tableOf(t, base).Partitions[0].Type; got != tc.want {
			t.Errorf("%s of %s: type %s, want %s", tc.role, tc.arch, got, tc.want)
		}
	}
}

// mbrScript has a /boot, a root that is not active, a swap, and a logical home.
const mbrScript = `label: dos
label-id: 0x5ec0ffee
size=4MiB, type=83, bootable
size=8MiB, type=8e
size=4MiB, type=82
type=5
size=4MiB, type=83
`

var mbrRoles = map[int]disk.Role{1: disk.Boot, 2: disk.Root, 3: disk.Swap, 5: disk.Home}

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

func TestDOSTableWhileStepsRun(t *testing.T) {
	base := partitioned(t, mbrScript)
	if err := Prepare(base, layoutOf(t, base, mbrRoles)); err != nil {
		t.Fatal(err)
	}
	if got, want := types(t, base), "ea 83* 82 5 83"; got != want {
		t.Errorf("types %s, want %s", got, want)
	}
	noBoot := partitioned(t, mbrScript)
	if err := Prepare(noBoot, layoutOf(t, noBoot, map[int]disk.Role{2: disk.Root})); err != nil {
		t.Fatal(err)
	}
	if got, want := types(t, noBoot), "83 83* 82 5 83"; got != want {
		t.Errorf("without a /boot: types %s, want %s", got, want)
	}
	if err := Prepare(noBoot, layoutOf(t, noBoot, map[int]disk.Role{5: disk.Root})); err == nil {
		t.Error("a logical partition is prepared as root")
	}
}

// TestBareFilesystemIsLeftAlone: there is no table to prepare or to identify.
func TestBareFilesystemIsLeftAlone(t *testing.T) {
	img := filepath.Join(t.TempDir(), "bare.raw")
	writeFile(t, img, "a filesystem")
	bare := &disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Role: disk.Root}}}
	if err := Prepare(img, bare); err != nil {
		t.Error(err)
	}
	if err := identifyOpen(t, img, nil, bare, Derive(bare, "key", "name")); err != nil {
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
	}, Mounts: []disk.Mounted{{Mountpoint: "/home", Slot: 2}, {Mountpoint: "/boot/efi", Slot: 15}}}
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
	}, Mounts: []disk.Mounted{{Mountpoint: "/boot", Slot: 1}}}
	if change != nil {
		change(l)
	}
	return l
}

// TestWhatIsRefusedAtImport is about images that could be changed, but not into
// what a recipe asks for.
func TestWhatIsRefusedAtImport(t *testing.T) {
	mount := func(slot int, point string) func(*disk.Layout) {
		return func(l *disk.Layout) { l.Mounts = append(l.Mounts, disk.Mounted{Mountpoint: point, Slot: slot}) }
	}
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
		{"root in the last primary partition", dosImage(func(l *disk.Layout) { l.Volumes[1].Slot = 4 }), ""},
		{"root in a logical partition",
			dosImage(func(l *disk.Layout) { l.Volumes[1].Role, l.Volumes[2].Role = "", disk.Root }), "partition 5"},

		// What the image mounts must be where steps write.
		{"firmware's volume elsewhere", gptImage(mount(15, "/efi")), ""},
		{"firmware's volume on a board", gptImage(mount(15, "/boot/firmware")), ""},
		{"firmware's volume in a place of its own", gptImage(mount(15, "/esp")), "/esp"},
		{"a volume in two places", gptImage(mount(2, "/mnt")), "/mnt"},
		{"a volume without a role", gptImage(func(l *disk.Layout) {
			l.Volumes = append(l.Volumes, disk.Volume{Slot: 3, FS: "ext4"})
			mount(3, "/opt")(l)
		}), "/opt"},
		{"root again", gptImage(mount(1, "/")), "on /,"},
		{"a directory in another place", gptImage(mount(0, "/srv")), "/srv"},
		{"a partition that is not there", gptImage(mount(7, "/data")), "/data"},
		{"an unmounted volume", gptImage(func(l *disk.Layout) { l.Mounts = l.Mounts[1:] }), ""},
		{"/home of a DOS table", dosImage(func(l *disk.Layout) {
			l.Volumes[2].Role, l.Volumes[2].Mountpoint = disk.Home, "/home"
			mount(5, "/home")(l)
		}), "/home"},
		{"a logical /boot", dosImage(func(l *disk.Layout) {
			l.Volumes[0].Role, l.Volumes[2].Role, l.Volumes[2].Mountpoint = "", disk.Boot, "/boot"
			l.Mounts[0].Slot = 5
		}), "/boot"},
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

// TestPlacesThatStepsSee are those where the image mounts its volumes.
func TestPlacesThatStepsSee(t *testing.T) {
	for _, tc := range []struct {
		layout *disk.Layout
		want   []string
	}{
		{gptImage(nil), []string{"/", "/home"}},
		{dosImage(nil), []string{"/", "/boot"}},
		{&disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Role: disk.Root}}}, []string{"/"}},
		{gptImage(func(l *disk.Layout) { l.Volumes[1].Role = "" }), []string{"/"}},
		{gptImage(func(l *disk.Layout) {
			l.Volumes[1].Role, l.Volumes[1].Mountpoint = disk.Var, "var/"
		}), []string{"/", "/var"}},
		{dosImage(func(l *disk.Layout) { l.Volumes[0].Role = disk.Srv }), []string{"/"}},
	} {
		if got := Mountpoints(tc.layout); !slices.Equal(got, tc.want) {
			t.Errorf("%+v: steps see %q, want %q", tc.layout.Volumes, got, tc.want)
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
