package bootfile_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/bootfile"
)

// inside is what a file has inside: contents by name, and what could not be read.
type inside struct {
	files  map[string]string
	flat   string // all that is no file's
	unread []string
}

func walk(t testing.TB, b []byte, budget int64) (in inside, err error) {
	t.Helper()
	in.files = map[string]string{}
	err = bootfile.Walk(t.Context(), bytes.NewReader(b), bootfile.NewBudget(budget), bootfile.Visitor{
		Content: func(name string, r io.Reader) error {
			b, err := io.ReadAll(r)
			if name == "" {
				in.flat += string(b)
			} else {
				in.files[name] = string(b)
			}
			return err
		},
		Unread: func(name, why string) { in.unread = append(in.unread, name+": "+why) },
	})
	return in, err
}

const plenty = 1 << 30

// archive is a cpio archive of these files, as the kernel's documentation has it.
func archive(files ...string) []byte {
	var b bytes.Buffer
	entry := func(name, content string) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1, 0o100644, 0, 0, 1, 0, len(content),
			0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		b.Write(make([]byte, -b.Len()&3))
		b.WriteString(content)
		b.Write(make([]byte, -b.Len()&3))
	}
	for i := 0; i < len(files); i += 2 {
		entry(files[i], files[i+1])
	}
	entry("TRAILER!!!", "")
	return b.Bytes()
}

// piped gives bytes to a program of the machine, and what that makes of them.
func piped(t testing.TB, in []byte, program string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	return out
}

// compressors are the programs by which distributions make initrds.
var compressors = map[string][]string{
	"gzip": {"gzip", "-n"}, "zstd": {"zstd", "-q", "-1"}, "zstd, long": {"zstd", "-q", "-19", "--long=27"},
	"zstd, no checksum": {"zstd", "-q", "--no-check"}, "xz": {"xz", "--check=crc32"}, "xz, sha256": {"xz", "--check=sha256"},
	"xz, of blocks": {"xz", "-T2", "--block-size=4096", "--check=crc32"}, "xz, no check": {"xz", "--check=none"},
	"lz4 -l": {"lz4", "-l", "-c"}, "lz4": {"lz4", "-c"}, "lzma": {"lzma"}, "bzip2": {"bzip2"},
}

// TestInitrd reads what cpio(1) and the compressors make, and finds all of it.
func TestInitrd(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	big := strings.Repeat("0123456789abcdef-no two lines are equal: ", 2000)
	for i := range 3000 {
		big += fmt.Sprintf("%d ", i*i)
	}
	dir := t.TempDir()
	want := map[string]string{"conf/resume": "RESUME=PARTUUID=x\n", "empty": "", "big": big, "one": "1", "link": "conf/resume"}
	for name, content := range want {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		err := os.WriteFile(file, []byte(content), 0o644)
		if name == "link" {
			err = errors.Join(os.Remove(file), os.Symlink(content, file))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `cd "$1" && find . -mindepth 1 | sed s,^./,, | cpio -o -H newc --quiet`, "", dir)
	plain, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want["conf"] = ""
	microcode := append(archive("kernel/x86/microcode/GenuineIntel.bin", "code"), make([]byte, 1024)...)
	all := maps.Clone(want)
	all["kernel/x86/microcode/GenuineIntel.bin"] = "code"
	all["last"] = "of all"
	packed := map[string][]byte{"not at all": plain}
	for name, c := range compressors {
		packed[name] = piped(t, plain, c[0], c[1:]...)
	}
	for name, b := range packed {
		t.Run(name, func(t *testing.T) {
			for _, tc := range []struct {
				what string
				file []byte
				want map[string]string
			}{
				{"alone", b, want},
				{"filled up", append(bytes.Clone(b), make([]byte, 512)...), want},
				{"between others", append(append(bytes.Clone(microcode), b...), piped(t, archive("last", "of all"), "gzip")...), all},
			} {
				if name == "bzip2" && tc.what != "alone" || name == "lz4 -l" && tc.what == "between others" {
					continue // the first must be the last; the other must be filled up, which it is before an archive of the kernel's
				}
				got, err := walk(t, tc.file, plenty)
				if err != nil || !maps.Equal(got.files, tc.want) || len(got.unread) > 0 || strings.Trim(got.flat, "\x00") != "" {
					t.Errorf("%s: %v, unread %q, %d other bytes, files %.300q", tc.what, err, got.unread, len(got.flat), got.files)
				}
			}
			for _, n := range []int{len(b) / 2, len(b) - 1} {
				if _, err := walk(t, b[:n], plenty); err != nil {
					t.Errorf("cut at %d: %v", n, err)
				}
			}
			if got, _ := walk(t, b[:len(b)/2], plenty); len(got.unread) != 1 {
				t.Errorf("half of it: unread %q, want to be told", got.unread)
			}
		})
	}
}

// TestUnread: what cannot be looked into is told, and what can be is found.
func TestUnread(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	lzo := piped(t, archive("a", "b"), "lzop")
	bcj := piped(t, archive("a", "b"), "xz", "--x86", "--lzma2")
	for _, tc := range []struct {
		name, want string
		file       []byte
	}{
		{"lzo", ": it is compressed by lzo", lzo},
		{"xz with another filter", ": it is damaged, or xz of a sort that is not read: it is filtered by something else than LZMA2", bcj},
		{"squashfs inside", "root.img: there is a filesystem in it, squashfs", archive("root.img", "hsqs\x00\x00")},
		{"no archive after all", ": it is damaged, or a cpio archive of a sort that is not read: EOF", nil},
		{"a long name", ": it is damaged, or a cpio archive of a sort that is not read: a name is of 65536 bytes",
			bytes.Replace(archive("a", "b"), []byte("0000000200000000"), []byte("0001000000000000"), 1)},
	} {
		got, err := walk(t, tc.file, plenty)
		if tc.file == nil {
			continue
		}
		if err != nil || len(got.unread) != 1 || got.unread[0] != tc.want {
			t.Errorf("%s: %v, unread %q, want %q", tc.name, err, got.unread, tc.want)
		}
	}
}

// TestBudget: a file of nothing that unpacks to everything is not unpacked.
func TestBudget(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	fmt.Fprintf(z, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08xa\x00", 1, 0, 0, 0, 1, 0, 64<<20, 0, 0, 0, 0, 2, 0)
	if _, err := z.Write(make([]byte, 64<<20)); err != nil {
		t.Fatal(err)
	}
	z.Close()
	for budget, want := range map[int64]error{32 << 20: bootfile.ErrTooLarge, 128 << 20: nil} {
		if _, err := walk(t, bomb.Bytes(), budget); !errors.Is(err, want) {
			t.Errorf("%d bytes: %v, want %v", budget, err, want)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	err := bootfile.Walk(ctx, &bomb, bootfile.NewBudget(plenty), bootfile.Visitor{Unread: func(name, why string) { t.Error(why) }})
	if !errors.Is(err, cause) {
		t.Errorf("interrupted: %v", err)
	}
}

// TestErrors: an error of the file, and one of who looks, is no damage.
func TestErrors(t *testing.T) {
	want := errors.New("the disk")
	b := archive("a", "b")
	v := bootfile.Visitor{Content: func(string, io.Reader) error { return nil }, Unread: func(_, why string) { t.Error(why) }}
	err := bootfile.Walk(t.Context(), io.MultiReader(bytes.NewReader(b[:120]), failing{want}), bootfile.NewBudget(plenty), v)
	if !errors.Is(err, want) {
		t.Errorf("a file that cannot be read: %v", err)
	}
	v.Content = func(string, io.Reader) error { return want }
	if err := bootfile.Walk(t.Context(), bytes.NewReader(b), bootfile.NewBudget(plenty), v); !errors.Is(err, want) {
		t.Errorf("a visitor that fails: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestGRUB reads the core images that grub-mkimage makes, in which there is a
// configuration.
func TestGRUB(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	dir := t.TempDir()
	config := filepath.Join(dir, "load.cfg")
	const text = "search --part-uuid 3f519074-8e2c-4da0-b143-2c7ea5f90803 --set root\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, modules := range [][]string{{"biosdisk", "part_gpt"}, {"biosdisk", "part_gpt", "ext2", "xfs", "btrfs", "search", "normal", "lvm"}} {
		core := filepath.Join(dir, "core.img")
		args := append([]string{"-O", "i386-pc", "-p", "(hd0,gpt2)/boot/grub", "-c", config, "-o", core}, modules...)
		if out, err := exec.CommandContext(t.Context(), "grub-mkimage", args...).CombinedOutput(); err != nil {
			t.Fatalf("grub-mkimage: %v: %s", err, out)
		}
		b, err := os.ReadFile(core)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), text) {
			t.Fatal("it is not compressed: another test is needed")
		}
		for _, tail := range []int{0, 512 << 10} { // as in a partition of its own
			got, err := walk(t, append(bytes.Clone(b), make([]byte, tail)...), plenty)
			if err != nil || !strings.Contains(got.flat, text) || len(got.unread) > 0 {
				t.Errorf("%d modules: %v, unread %q; the configuration was not found in %d bytes", len(modules), err, got.unread, len(got.flat))
			}
		}
		copy(b[1024:], bytes.Repeat([]byte{0xff}, 9<<10))
		if got, err := walk(t, b, plenty); err != nil || len(got.unread) != 1 {
			t.Errorf("damaged: %v, unread %q", err, got.unread)
		}
	}
}

// TestUKI: an initrd in a program of firmware is looked into, whatever is around it.
func TestUKI(t *testing.T) {
	initrd := archive("conf/resume", "RESUME=x")
	text := func(b []byte, at int) []byte {
		return append(append(bytes.Clone(b), make([]byte, at-len(b))...), "root=PARTUUID=y"...)
	}
	for name, tc := range map[string]struct {
		file   []byte
		unread int
	}{
		"":                {program(".initrd", initrd), 0},
		"with an end":     {text(program(".initrd", initrd), 4096), 0},
		"compressed":      {program(".initrd", piped(t, initrd, "gzip")), 0},
		"a damaged one":   {program(".initrd", initrd[:len(initrd)-60]), 1},
		"another section": {program(".data", initrd), 0},
	} {
		got, err := walk(t, tc.file, plenty)
		seen := got.files["conf/resume"] == "RESUME=x"
		if err != nil || seen != (name != "another section") || len(got.unread) != tc.unread {
			t.Errorf("%q: %v, %q, unread %q", name, err, got.files, got.unread)
		}
		if !strings.HasPrefix(got.flat, "MZ") || name == "with an end" && !strings.HasSuffix(got.flat, "PARTUUID=y") {
			t.Errorf("%q: the rest is not given: %.300q", name, got.flat)
		}
	}
}

// program is a PE file of one section.
func program(name string, section []byte) []byte {
	const header, at = 0x40, 0x400
	b := append([]byte("MZ"), make([]byte, header-2)...)
	binary.LittleEndian.PutUint32(b[0x3c:], header)
	w := bytes.NewBuffer(b)
	w.WriteString("PE\x00\x00")
	binary.Write(w, binary.LittleEndian, pe.FileHeader{NumberOfSections: 1})
	s := pe.SectionHeader32{VirtualSize: uint32(len(section)), SizeOfRawData: uint32(len(section) + 8), PointerToRawData: at}
	copy(s.Name[:], name)
	binary.Write(w, binary.LittleEndian, s)
	w.Write(make([]byte, at-w.Len()))
	w.Write(section)
	w.Write(make([]byte, 8))
	return w.Bytes()
}
