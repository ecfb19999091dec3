package fork

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/gpt"
	"github.com/imgmut/imgmut/mutate/record"
)

// TestIdentitiesAreStable: another identity for the same build would change
// every image there is.
func TestIdentitiesAreStable(t *testing.T) {
	got := Wanted{}.Derive(gptImage(nil), "0123", "web")
	want := record.Identity{Disk: "9b3eee95-2c81-537c-9233-0501ab11fcd1", Partitions: map[string]string{
		"aaaaaaaa-0000-0000-0000-000000000001": "8d8a8d36-f76a-5083-8f04-2eb5bed5b0dc",
		"aaaaaaaa-0000-0000-0000-000000000002": "c006d273-323d-5cdd-b0d2-152961d687d2",
		"aaaaaaaa-0000-0000-0000-00000000000f": "eef8d174-69cf-501a-b62c-0c59fc6391a5",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
}

// TestIdentitiesAreApart: images that differ in their name, their chain or both
// share no GUID, with each other or with their base.
func TestIdentitiesAreApart(t *testing.T) {
	seen := map[string]string{}
	for _, v := range gptImage(nil).Volumes {
		seen[strings.ToLower(v.PartUUID)] = "the base"
	}
	for _, tc := range []struct {
		key  record.Key
		name string
	}{{"a", "web"}, {"b", "web"}, {"a", "db"}, {"b", "db"}} {
		id := Wanted{}.Derive(gptImage(nil), tc.key, tc.name)
		if len(id.Partitions) != 3 {
			t.Errorf("%d partitions get a GUID, want 3", len(id.Partitions))
		}
		for what, guid := range maps.All(id.Partitions) {
			if what != strings.ToLower(what) {
				t.Errorf("a partition is called %s: references are compared in lower case", what)
			}
			if other, ok := seen[guid]; ok {
				t.Errorf("%q %s: a partition has a GUID that %s has", tc.key, tc.name, other)
			}
			seen[guid] = string(tc.key) + " " + tc.name
		}
		if other, ok := seen[id.Disk]; ok {
			t.Errorf("%q %s: the disk has a GUID that %s has", tc.key, tc.name, other)
		}
		seen[id.Disk] = string(tc.key) + " " + tc.name
	}
}

// TestIdentityOfADOSTable: a signature, and names made of it as Linux does.
func TestIdentityOfADOSTable(t *testing.T) {
	a, b := Wanted{}.Derive(dosImage(nil), "k", "web"), Wanted{}.Derive(dosImage(nil), "k", "db")
	if len(a.Disk) != 8 || a.Disk == b.Disk {
		t.Errorf("signatures %s and %s, want two of eight digits", a.Disk, b.Disk)
	}
	want := map[string]string{"5ec0ffee-01": a.Disk + "-01", "5ec0ffee-02": a.Disk + "-02", "5ec0ffee-05": a.Disk + "-05"}
	if !maps.Equal(a.Partitions, want) {
		t.Errorf("partitions %v, want %v", a.Partitions, want)
	}
}

// TestIdentifyGPT gives an image its identity, and its root the type that it has by
// what is in it. The table is that of the base in all else, and the references in a
// FAT volume follow.
func TestIdentifyGPT(t *testing.T) {
	base := rooted(t, "label: gpt\n"+
		"size=8MiB, type="+gpt.TypeHome.String()+", attrs=\"GUID:60 GUID:63\"\n"+
		"size=8MiB, type="+gpt.TypeESP.String()+"\n")
	names := strings.ToUpper(tableOf(t, base).Partitions[0].GUID.String())
	fat := base + "@@9437184"
	program(t, "", "mkfs.vfat", "--offset", "18432", base, "8192")
	program(t, "", "mmd", "-i", fat, "::/EFI")
	// Whoever takes this name for a pattern writes to EFI/debian/grub.cfg.
	pattern := filepath.Join(t.TempDir(), "[a-d]ebian")
	if err := os.Mkdir(pattern, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(pattern, "grub.cfg"), []byte("root=PARTUUID="+names+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	program(t, "", "mcopy", "-s", "-i", fat, pattern, "::/EFI")
	program(t, "", "mmd", "-i", fat, "::/EFI/debian")
	program(t, "set root=PARTUUID="+names+"\n", "mcopy", "-i", fat, "-", "::/EFI/debian/grub.cfg")

	layout := layoutOf(t, base)
	work := copyOf(t, base)
	id := Wanted{}.Derive(layout, "key", "web")
	identifyFile(t, work, base, layout, id)

	before, after := tableOf(t, base), tableOf(t, work)
	if after.Disk.String() != id.Disk {
		t.Errorf("disk GUID %s, want %s", after.Disk, id.Disk)
	}
	for i, p := range after.Partitions {
		want := before.Partitions[i]
		want.GUID = uuid.MustParse(id.Partitions[want.GUID.String()])
		if want.Slot == 1 {
			want.Type = gpt.TypeRootX86_64
		}
		if p != want {
			t.Errorf("partition %+v, want %+v", p, want)
		}
	}
	text := program(t, "", "mtype", "-i", strings.Replace(fat, base, work, 1), "::/EFI/debian/grub.cfg")
	if want := "set root=PARTUUID=" + after.Partitions[0].GUID.String() + "\n"; text != want {
		t.Errorf("grub.cfg says %q, want %q", text, want)
	}
	text = program(t, "", "mtype", "-i", strings.Replace(fat, base, work, 1), "::/EFI/?a-d]ebian/grub.cfg")
	if want := "root=PARTUUID=" + after.Partitions[0].GUID.String() + "\n"; text != want {
		t.Errorf("the grub.cfg beside it says %q, want %q", text, want)
	}
}

// TestIdentifyKeepsTypes: those by which the image's own repart.d goes stay, whether
// its files name partitions or not, and all of them if the recipe says so.
func TestIdentifyKeepsTypes(t *testing.T) {
	for name, tc := range map[string]struct {
		repart string
		wanted Wanted
		keeps  bool
	}{
		"none of its own":       {"", Wanted{}, false},
		"its own":               {"Type=linux-generic\n", Wanted{}, true},
		"as the recipe says":    {"", Wanted{KeepTypes: true}, true},
		"its own, of a sibling": {"Type=home\n", Wanted{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			base := rooted(t, "label: gpt\nsize=8MiB, type="+gpt.TypeLinuxGeneric.String()+"\n")
			text, root := filepath.Join(t.TempDir(), "text"), base+"?offset=1048576"
			writeFile(t, text, "[Partition]\n"+tc.repart+"# PARTUUID="+tableOf(t, base).Partitions[0].GUID.String()+"\n")
			program(t, "mkdir etc/repart.d\nwrite "+text+" etc/repart.d/root.conf\n", "debugfs", "-w", "-f", "-", root)
			layout, work := layoutOf(t, base), copyOf(t, base)
			layout.Volumes[0].Role, layout.Arch = disk.Root, "x86-64"
			identifyFile(t, work, base, layout, tc.wanted.Derive(layout, "key", "web"))
			if is := tableOf(t, work).Partitions[0].Type; (is == gpt.TypeLinuxGeneric) != tc.keeps {
				t.Errorf("its type is %s", is)
			}
			id := tc.wanted.Derive(layout, "key", "web").Partitions[tableOf(t, base).Partitions[0].GUID.String()]
			if text := program(t, "", "debugfs", "-R", "cat etc/repart.d/root.conf", work+"?offset=1048576"); !strings.Contains(text, id) {
				t.Errorf("the reference did not follow: %q", text)
			}
		})
	}
}

func identifyFile(t *testing.T, work, base string, l *disk.Layout, id record.Identity) {
	t.Helper()
	f, err := os.Open(base)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := identifyOpen(t, work, f, l, id); err != nil {
		t.Fatal(err)
	}
}

// identifyOpen opens the image work and gives it its identity.
func identifyOpen(t *testing.T, work string, base *os.File, l *disk.Layout, id record.Identity) error {
	t.Helper()
	f, err := os.OpenFile(work, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	i, err := disk.OpenKnown(t.Context(), f, l, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	from := Base{File: base}
	c, err := Find(t.Context(), i, from, id, true)
	if err == nil {
		err = Identify(t.Context(), i, c, from, id, func(string) {})
	}
	return errors.Join(err, i.Close())
}

// TestIdentifyRefusesAnotherBase: the record of a base says which partitions it
// has, and an image of another would get GUIDs that nothing refers to.
func TestIdentifyRefusesAnotherBase(t *testing.T) {
	const script = "label: gpt\nsize=8MiB\n"
	one, other := rooted(t, script), rooted(t, script)
	layout := layoutOf(t, one)
	f, err := os.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := identifyOpen(t, copyOf(t, other), f, layout, Wanted{}.Derive(layout, "key", "web")); err == nil {
		t.Error("it got an identity")
	}
}

// TestIdentifyDOSTable gives partitions their names and leaves all else of the table,
// also where there are several active partitions or none.
func TestIdentifyDOSTable(t *testing.T) {
	for _, script := range []string{mbrScript, strings.Replace(mbrScript, ", bootable", "", 1),
		strings.Replace(mbrScript, "type=82", "type=82, bootable", 1)} {
		base := rooted(t, script)
		layout := layoutOf(t, base)
		work := copyOf(t, base)
		id := Wanted{}.Derive(layout, "key", "web")
		identifyFile(t, work, base, layout, id)
		if got, want := types(t, work), types(t, base); got != want {
			t.Errorf("types %s, want %s", got, want)
		}
		var got []string
		for _, v := range layoutOf(t, work).Volumes {
			got = append(got, v.PartUUID)
		}
		if want := slices.Sorted(maps.Values(id.Partitions)); !slices.Equal(got, want) {
			t.Errorf("partitions %v, want %v", got, want)
		}
	}
}
