package disk

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"io"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// classify tells what a tree is: "root" for an operating system, "ostree" for
// deployments of one, "" for files of any other sort.
func classify(t *Tree) string {
	switch {
	case etc.Exists(t, "ostree/repo"):
		return "ostree"
	case etc.Exists(t, "etc/os-release"), etc.Exists(t, "usr/lib/os-release"):
		return "root"
	}
	return ""
}

// osName reads ID and VERSION_ID (os-release(5)).
func osName(t *Tree) string {
	text := etc.Read(t, "etc/os-release")
	if text == "" {
		text = etc.Read(t, "usr/lib/os-release")
	}
	r := etc.ParseOSRelease(text)
	return strings.TrimSpace(r["ID"] + " " + r["VERSION_ID"])
}

var selinuxOn = lazyregexp.New(`(?m)^\s*SELINUX\s*=\s*(enforcing|permissive)\s*$`)

// usesSELinux tells whether the system labels its files (selinux_config(5)).
func usesSELinux(t *Tree) bool { return selinuxOn().MatchString(etc.Read(t, "etc/selinux/config")) }

// machineArch reads the architecture off a program that every system has, in
// systemd's words.
func machineArch(t *Tree) (string, error) {
	for _, name := range []string{
		"usr/lib/systemd/systemd", "lib/systemd/systemd", "bin/sh", "usr/bin/sh", "bin/busybox", "sbin/init",
	} {
		switch machine := machineOf(t, name); machine {
		case elf.EM_NONE: // the next one, perhaps
		case elf.EM_X86_64:
			return "x86-64", nil
		case elf.EM_AARCH64:
			return "arm64", nil
		default:
			return "", fault.New(fault.Image, "", "the image is for %s: imgmut knows x86-64 and arm64", machine)
		}
	}
	return "", fault.New(fault.Image, "check that the root filesystem is whole",
		"the image's root holds no program that tells its architecture (no /bin/sh, no systemd)")
}

// machineOf gives the machine that a program is for, [elf.EM_NONE] if the file
// is no program. It reads the start of the header (elf(5)) and nothing else:
// [elf.NewFile] believes whatever number of sections a stranger's file claims.
func machineOf(t *Tree, name string) elf.Machine {
	f, err := t.Open(name)
	if err != nil {
		return elf.EM_NONE
	}
	defer f.Close()
	header := make([]byte, 20) // up to e_machine
	if _, err := io.ReadFull(f, header); err != nil || !bytes.HasPrefix(header, []byte(elf.ELFMAG)) {
		return elf.EM_NONE
	}
	switch machine := header[18:]; elf.Data(header[elf.EI_DATA]) {
	case elf.ELFDATA2LSB:
		return elf.Machine(binary.LittleEndian.Uint16(machine))
	case elf.ELFDATA2MSB:
		return elf.Machine(binary.BigEndian.Uint16(machine))
	}
	return elf.EM_NONE
}
