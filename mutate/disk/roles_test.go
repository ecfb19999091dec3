package disk

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/imgmut/imgmut/mutate/fault"
)

// files are those of a volume, by name and content. A name that ends in / is an empty
// directory.
func files(contents map[string]string) *Tree {
	t := fstest.MapFS{}
	for name, text := range contents {
		if dir, ok := strings.CutSuffix(name, "/"); ok {
			t[dir] = &fstest.MapFile{Mode: 0o755 | fs.ModeDir}
			continue
		}
		t[name] = &fstest.MapFile{Data: []byte(text), Mode: 0o644}
	}
	return &Tree{files: t}
}

// TestWhatATreeIs: root is what holds an operating system, by its files.
func TestWhatATreeIs(t *testing.T) {
	for _, tc := range []struct {
		file, want string // a part of what is said
	}{
		{"etc/os-release", "root"},
		{"usr/lib/os-release", "root"},
		{"ostree/repo/config", "ostree"},
		{"root/etc/os-release", ""}, // a subvolume, perhaps
		{"etc/fstab", ""},
	} {
		got := classify(files(map[string]string{tc.file: ""}))
		if (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("a tree with %s is %q, want %q", tc.file, got, tc.want)
		}
	}
	both := files(map[string]string{"ostree/repo/config": "", "etc/os-release": ""})
	if got := classify(both); !strings.Contains(got, "ostree") {
		t.Errorf("a deployment with an os-release is %q", got)
	}
}

func TestNameOfTheSystem(t *testing.T) {
	const debian, fedora = "ID=debian\nVERSION_ID=\"12\"\n", "ID=fedora\nVERSION_ID=42\n"
	for _, tc := range []struct {
		name, want string
		files      map[string]string
	}{
		{"in /etc", "debian 12", map[string]string{"etc/os-release": debian}},
		{"in /usr", "fedora 42", map[string]string{"usr/lib/os-release": fedora}},
		{"/etc before /usr", "debian 12", map[string]string{"etc/os-release": debian, "usr/lib/os-release": fedora}},
		{"no version", "arch", map[string]string{"etc/os-release": "ID=arch\n"}},
		{"none", "", nil},
		{"a file too large to be one", "fedora 42", map[string]string{
			"etc/os-release": debian + strings.Repeat("#", 8<<20), "usr/lib/os-release": fedora}},
		{"the largest", "debian 12", map[string]string{"etc/os-release": debian + strings.Repeat("#", 8<<20-len(debian))}},
	} {
		if got := osName(files(tc.files)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestLabelsOfSELinux(t *testing.T) {
	for text, want := range map[string]bool{
		"SELINUX=enforcing\n": true, "# x\n SELINUX = permissive \n": true, "SELINUX=disabled\n": false,
		"#SELINUX=enforcing\n": false, "SELINUXTYPE=enforcing\n": false, "SELINUX=enforcing2\n": false, "": false,
	} {
		if got := usesSELinux(files(map[string]string{"etc/selinux/config": text})); got != want {
			t.Errorf("%q: labels: %t, want %t", text, got, want)
		}
	}
	if usesSELinux(files(nil)) {
		t.Error("a system without a configuration labels its files")
	}
}

// program is the least of an ELF file for a machine.
func program(machine elf.Machine) string {
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Ehsize: 64}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, h)
	return b.String()
}

// TestArchitecture is told by the programs of the system, the first that is one.
func TestArchitecture(t *testing.T) {
	x86, arm := program(elf.EM_X86_64), program(elf.EM_AARCH64)
	for _, tc := range []struct {
		name, want string // an error if empty
		files      map[string]string
	}{
		{"systemd", "x86-64", map[string]string{"usr/lib/systemd/systemd": x86}},
		{"systemd where /usr is not merged", "arm64", map[string]string{"lib/systemd/systemd": arm}},
		{"a shell", "arm64", map[string]string{"bin/sh": arm}},
		{"a shell in /usr", "x86-64", map[string]string{"usr/bin/sh": x86}},
		{"busybox", "arm64", map[string]string{"bin/busybox": arm}},
		{"init", "x86-64", map[string]string{"sbin/init": x86}},
		{"systemd before the others", "arm64", map[string]string{"usr/lib/systemd/systemd": arm, "bin/sh": x86}},
		{"a shell that is a script", "arm64", map[string]string{"bin/sh": "#!/bin/bash\n", "sbin/init": arm}},
		{"a program that is cut off", "arm64", map[string]string{"bin/sh": x86[:19], "sbin/init": arm}},
		{"what is no program for its first letter", "arm64", map[string]string{"bin/sh": "\x00" + x86[1:], "sbin/init": arm}},
		{"another machine", "", map[string]string{"bin/sh": program(elf.EM_RISCV)}},
		{"no program", "", map[string]string{"bin/sh": "text"}},
		{"nothing", "", nil},
	} {
		got, err := machineArch(files(tc.files))
		if got != tc.want || (err == nil) != (tc.want != "") {
			t.Errorf("%s: %q, %v, want %q", tc.name, got, err, tc.want)
		}
		if err != nil && fault.Of(err) != fault.Image {
			t.Errorf("%s: error %v is not the image's", tc.name, err)
		}
	}
}

// TestArchitectureOfAHostileProgram: how many sections a program claims to have
// costs no memory.
func TestArchitectureOfAHostileProgram(t *testing.T) {
	const sections = 1 << 21
	h := elf.Header64{
		Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT),
		Shoff: 64, Shentsize: 64, // without Shnum, the size of the first section is their number
	}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = 2, 1, 1
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, h)
	_ = binary.Write(&b, binary.LittleEndian, elf.Section64{Size: sections})
	dir := t.TempDir()
	name := filepath.Join(dir, "bin/sh")
	if err := errors.Join(os.Mkdir(filepath.Dir(name), 0o755), os.WriteFile(name, b.Bytes(), 0o755),
		os.Truncate(name, 64*(sections+1))); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	arch, err := machineArch(TreeAt(root))
	runtime.ReadMemStats(&after)
	if arch != "x86-64" || err != nil {
		t.Errorf("machineArch = %q, %v", arch, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("it took %d MiB of memory", took>>20)
	}
}

// TestWhoseFault: what this machine lacks is no fault of an image.
func TestWhoseFault(t *testing.T) {
	for _, e := range []error{
		syscall.EPERM, syscall.EACCES, syscall.ENOENT, syscall.EBUSY, syscall.EMFILE, syscall.ENOMEM,
	} {
		if !hostFault(fmt.Errorf("mount: %w", e)) {
			t.Errorf("%v is taken for the image's fault", e)
		}
	}
	for _, e := range []error{syscall.EUCLEAN, syscall.EBADMSG, syscall.EIO, syscall.EINVAL, errors.New("x"), nil} {
		if hostFault(e) {
			t.Errorf("%v is taken for the machine's fault", e)
		}
	}
}

// TestBlkidsBackslashes: before what a shell would take for more than a letter
// blkid writes a backslash.
func TestBlkidsBackslashes(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "root": "root", `my\ root`: "my root", `a\\b`: `a\b`, `a\\\\`: `a\\`, `\$x`: "$x", `cut\`: `cut\`,
	} {
		if got := unescape(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}
