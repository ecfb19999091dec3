package disk

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
	"github.com/imgmut/imgmut/mutate/mount"
)

// TestBootRegions: of a disk may change what firmware starts, and no byte of a table or
// of a filesystem.
func TestBootRegions(t *testing.T) {
	bios := strings.ToUpper(gpt.TypeBIOSBoot.String())
	for _, tc := range []struct {
		name   string
		layout Layout
		want   []string
	}{
		{"GPT", Layout{Table: GPT, Volumes: []Volume{
			{Slot: 14, Offset: 1 << 20, Size: 3 << 20, Type: bios}, {Slot: 1, Offset: 8 << 20, Size: 1 << 30}}},
			[]string{"0+440", "1048576+3145728"}},
		{"a large BIOS boot partition", Layout{Table: GPT, Volumes: []Volume{{Slot: 1, Offset: 1 << 20, Size: 1 << 40, Type: bios}}},
			[]string{"0+440", "1048576+16777216"}},
		{"a BIOS boot partition that is root",
			Layout{Table: GPT, Volumes: []Volume{{Slot: 1, Offset: 1 << 20, Size: 1 << 30, Type: bios, FS: "ext4"}}},
			[]string{"0+440"}},
		{"GPT of 4 KiB", Layout{Table: GPT, SectorSize: 4096, Volumes: []Volume{{Slot: 1, Offset: 1 << 20, Size: 1 << 20}}},
			[]string{"0+440"}},
		{"DOS", Layout{Table: MBR, Volumes: []Volume{{Slot: 2, Offset: 3 << 20, Size: 1}, {Slot: 1, Offset: 1 << 20, Size: 1 << 20, Type: bios}}},
			[]string{"0+440", "512+1048064"}},
		{"DOS with a partition behind the first sector", Layout{Table: MBR, Volumes: []Volume{{Slot: 1, Offset: 512, Size: 1 << 20}}},
			[]string{"0+440"}},
		{"DOS with a far partition", Layout{Table: MBR, Volumes: []Volume{{Slot: 1, Offset: 1 << 40, Size: 1 << 20}}},
			[]string{"0+440", "512+16776704"}},
		{"no table", Layout{Table: Bare, Volumes: []Volume{{Size: 1 << 30, FS: "xfs"}}}, nil},
	} {
		var got []string
		for _, r := range tc.layout.bootRegions() {
			got = append(got, fmt.Sprintf("%d+%d", r.offset, r.size))
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestKeep: what was written to the clone where boot loaders are is in the image; what
// was written anywhere else would be lost, and is an error.
func TestKeep(t *testing.T) {
	const size = 8 << 20
	dos := &Layout{Table: MBR, Volumes: []Volume{{Slot: 1, Offset: 1 << 20, Size: 1 << 20, FS: "ext4"},
		{Slot: 2, Offset: 3 << 20, Size: 4 << 20, Type: "0x05"}, {Slot: 5, Offset: 4 << 20, Size: 1 << 20}}}
	guids := &Layout{Table: GPT, Volumes: []Volume{{Slot: 14, Offset: 3<<20 - 512, Size: 1 << 20, Type: gpt.TypeBIOSBoot.String()}}}
	bare := &Layout{Table: Bare, Volumes: []Volume{{Size: size, FS: "ext4"}}}
	const between = "the partition table, or what is between partitions"
	for _, tc := range []struct {
		name   string
		layout *Layout
		writes map[int64]string
		want   map[int64]string // what else than zero is then in the image
		lost   string           // where it has written what cannot be kept
	}{
		{"nothing", dos, nil, nil, ""},
		{"what is there", dos, map[int64]string{1 << 20: "\x00\x00"}, nil, ""},
		{"boot code", dos, map[int64]string{0: "code"}, map[int64]string{0: "code"}, ""},
		{"more than boot code", dos, map[int64]string{436: "more than it"}, nil, between + " (/dev/vda, at byte 440)"},
		{"the gap", dos, map[int64]string{512: "core", 1<<20 - 2: "en"}, map[int64]string{512: "core", 1<<20 - 2: "en"}, ""},
		{"beyond the gap", dos, map[int64]string{1<<20 - 2: "endxx"}, nil, "partition 1 (ext4) (/dev/vda, at byte 1048576)"},
		{"an empty partition", dos, map[int64]string{5<<20 - 1: "x"}, nil, "partition 5 (/dev/vda, at byte 5242879)"},
		{"an extended partition", dos, map[int64]string{3 << 20: "x"}, nil, between},
		{"behind the last", dos, map[int64]string{size - 1: "x"}, nil, between},
		{"the table", dos, map[int64]string{446: "x"}, nil, between},
		{"a GPT", dos, map[int64]string{512: "EFI PART"}, nil, between},
		{"a GPT of large sectors", dos, map[int64]string{4096: "EFI PART"}, nil, between},
		{"a BIOS boot partition", guids, map[int64]string{3<<20 - 512: "core", 4<<20 - 513: "x"},
			map[int64]string{3<<20 - 512: "core", 4<<20 - 513: "x"}, ""},
		{"the table of a GPT", guids, map[int64]string{1024: "x"}, nil, between},
		{"the boot sector of a filesystem", bare, map[int64]string{0: "code"}, nil, "the filesystem (/dev/vda, at byte 0)"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var files [3]*os.File
			for n := range files {
				f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if err := f.Truncate(size); err != nil {
					t.Fatal(err)
				}
				files[n] = f
			}
			l := &Lent{image: &Image{File: files[0], Layout: tc.layout}, before: files[1], clone: files[2]}
			for at, text := range tc.writes {
				if _, err := l.clone.WriteAt([]byte(text), at); err != nil {
					t.Fatal(err)
				}
			}
			err := l.keep(t.Context())
			if tc.lost != "" {
				if fault.Of(err) != fault.Step || !strings.Contains(err.Error(), "it has written to "+tc.lost) {
					t.Errorf("%v, want that it has written to %s", err, tc.lost)
				}
				return // the fork is thrown away
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(files[0].Name())
			if err != nil {
				t.Fatal(err)
			}
			want := make([]byte, size)
			for at, text := range tc.want {
				copy(want[at:], text)
			}
			if n := slices.Compare(got, want); n != 0 {
				t.Error("the image has something else")
			}
		})
	}
}

// TestUdevData: a label of the image is one property, whatever is in it.
func TestUdevData(t *testing.T) {
	l := &Layout{Table: GPT, Volumes: []Volume{{Slot: 2, Offset: 1 << 20, Size: 2 << 20, Type: "ABC", PartUUID: "DEF",
		PartLabel: "a b\nE:ID_FS_TYPE=evil", FS: "ext4", UUID: "x-y", Label: "/root é"}}}
	want := `E:ID_PART_TABLE_TYPE=gpt
E:ID_FS_TYPE=ext4
E:ID_FS_UUID=x-y
E:ID_FS_UUID_ENC=x-y
E:ID_FS_LABEL=\x2froot\x20é
E:ID_FS_LABEL_ENC=\x2froot\x20é
E:ID_FS_USAGE=filesystem
E:ID_PART_ENTRY_SCHEME=gpt
E:ID_PART_ENTRY_NUMBER=2
E:ID_PART_ENTRY_TYPE=abc
E:ID_PART_ENTRY_UUID=def
E:ID_PART_ENTRY_NAME=a\x20b\x0aE:ID_FS_TYPE=evil
E:ID_PART_ENTRY_OFFSET=2048
E:ID_PART_ENTRY_SIZE=4096
`
	if got := l.udevData(2); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	if got := l.udevData(0); got != "E:ID_PART_TABLE_TYPE=gpt\n" {
		t.Errorf("of the disk: %s", got)
	}
	if nodes := l.nodes(); !slices.Equal(nodes, []int{0, 2}) {
		t.Errorf("nodes %d", nodes)
	}
}

// TestDevLinks: a volume has links by its names, whatever an image calls it.
func TestDevLinks(t *testing.T) {
	l := &Layout{Table: GPT, Volumes: []Volume{
		{Slot: 1, UUID: "u-1", Label: "/root", PartUUID: "AB", PartLabel: "."},
		{Slot: 2, UUID: "u-1", Label: "..", PartLabel: "..."},
		{Slot: 3, Label: strings.Repeat(" ", 64), PartLabel: "..."}, // encoded it is longer than a name
		{Slot: 4, Type: extended[0], Label: "no node"},
	}}
	links, err := l.devLinks()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"disk/by-uuid/u-1": "../../vda1", `disk/by-label/\x2froot`: "../../vda1",
		"disk/by-partuuid/ab": "../../vda1", "disk/by-partlabel/...": "../../vda2"}
	if !maps.Equal(links, want) {
		t.Errorf("%q, want %q", links, want)
	}
}

// stagedFAT is a FAT volume with some files, and its copy.
func stagedFAT(t *testing.T) (f *lentFAT, dir string, scratch string) {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	image := filepath.Join(t.TempDir(), "disk")
	fixtures.Program(t, "", "sh", "-euc", `truncate -s 5M "$1"; mkfs.vfat --offset 2048 "$1" 4096 >/dev/null; v=$1@@1M
mmd -i $v ::/EFI ::/loader; echo one | mcopy -i $v - ::/EFI/one; echo two | mcopy -i $v - ::/loader/two`, "sh", image)
	file, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	v := Volume{Slot: 1, Offset: 1 << 20, Size: 4 << 20, FS: "vfat"}
	i, err := OpenKnown(t.Context(), file, &Layout{Table: GPT, Volumes: []Volume{v}}, func(string) {})
	if err != nil {
		t.Fatal(err)
	}
	l := &Lent{image: i, users: mount.Users{}}
	if f, err = l.newFAT(Mounted{Slot: 1, Mountpoint: "/efi"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.copy.Close(); i.Close(); file.Close() })
	if err := f.stage(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f, fmt.Sprintf("/proc/self/fd/%d", f.copy.Fd()), t.TempDir()
}

// TestUnstage: files that a step changes in the copy are changed in the volume, and what
// cannot be there is refused.
func TestUnstage(t *testing.T) {
	for _, tc := range []struct {
		name, script string // in the directory of the copy
		want         string // what mdir and mtype give, or the error
	}{
		{"nothing", "true", "/EFI/one=one /loader/two=two"},
		{"a new file", "echo x >EFI/new", "/EFI/new=x /EFI/one=one /loader/two=two"},
		{"an empty directory", "mkdir -p a/b", "/EFI/one=one /a/b/ /loader/two=two"},
		{"a change of the same size", "echo uno >EFI/one", "/EFI/one=uno /loader/two=two"},
		{"another file of the name", "echo new >x; mv x EFI/one", "/EFI/one=new /loader/two=two"},
		{"a file removed", "rm EFI/one", "/EFI/ /loader/two=two"},
		{"a directory removed", "rm -r EFI", "/loader/two=two"},
		{"a directory renamed", "mv EFI efi2", "/efi2/one=one /loader/two=two"},
		{"a directory in place of a file", "rm EFI/one; mkdir EFI/one; echo in >EFI/one/in", "/EFI/one/in=in /loader/two=two"},
		{"a file in place of a directory", "rm -r EFI; echo x >EFI", "/EFI=x /loader/two=two"},
		{"another case", "mv EFI/one EFI/ONE; echo eins >EFI/ONE", "/EFI/one=eins /loader/two=two"},
		{"a random seed", "echo secret >loader/random-seed", "/EFI/one=one /loader/two=two"},
		{"a link", "ln -s one EFI/link", "/efi/EFI/link: a FAT volume has files and directories only"},
		{"a link for a directory", "rm -r EFI; ln -s /etc EFI", "/efi/EFI: a FAT volume has"},
		{"a pipe", "mkfifo EFI/pipe", "/efi/EFI/pipe: a FAT volume has"},
		{"twins", "echo >efi", "FAT does not tell it from"},
		{"too much", "head -c 4080k /dev/zero >a || true", "no space left on device"},
		{"what lies too deep", "for i in $(seq 600); do mkdir d; cd d; done", "no program finds what lies that deep"},
		{"no name of FAT", `echo >'a:b'`, "FAT cannot have a name with one of"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, dir, scratch := stagedFAT(t)
			fd, err := unix.Openat(int(f.copy.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			fixtures.Program(t, "", "sh", "-euc", `cd "$1"; `+tc.script, "sh", strings.Replace(dir, "self", fmt.Sprint(os.Getpid()), 1))
			err = f.unstage(t.Context(), scratch)
			if left, _ := os.ReadDir(scratch); len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%v, want %s", err, tc.want)
				}
				return
			}
			got := fixtures.Program(t, "", "sh", "-euc", `v=$1@@1M; for f in $(mdir -b -/ -i $v ::/ | sed 's/^:://' | sort); do
case $f in */) mdir -b -i $v "::$f" 2>/dev/null | grep -q . || echo "$f" ;; *) echo "$f=$(mtype -i $v "::$f")" ;; esac; done
dd if="$1" of="$1.fat" bs=1M skip=1 status=none; fsck.vfat -n "$1.fat" >/dev/null`, "sh", f.image.File.Name())
			if words := strings.Join(strings.Fields(got), " "); words != tc.want {
				t.Errorf("the volume has %s, want %s", words, tc.want)
			}
			if err := f.stage(t.Context()); err != nil { // and the next step sees that
				t.Error(err)
			}
			if _, err := os.Stat(dir + "/loader/random-seed"); err == nil {
				t.Error("the next step finds a random seed")
			}
		})
	}
}

// TestStageWithoutAVolume: a step does without a volume that cannot be read, and that is
// told once; nothing of it is written then.
func TestStageWithoutAVolume(t *testing.T) {
	f, _, scratch := stagedFAT(t)
	if _, err := f.image.File.WriteAt(make([]byte, 512), f.volume.Offset); err != nil {
		t.Fatal(err)
	}
	clear(f.image.fats)
	f.tree = nil
	l := &Lent{image: f.image, fats: []*lentFAT{f}}
	var notes []string
	for range 2 {
		places, err := l.Stage(t.Context(), func(text string) { notes = append(notes, text) })
		if err != nil || len(places) > 0 {
			t.Errorf("places %v, %v", places, err)
		}
	}
	if len(notes) != 1 || !strings.Contains(notes[0], "steps find nothing below /efi: read partition 1 (vfat): its boot sector is damaged") {
		t.Errorf("notes %q", notes)
	}
	if err := l.Unstage(t.Context(), scratch); err != nil {
		t.Error(err)
	}
}
