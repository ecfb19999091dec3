package disk

import (
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
)

// maxText bounds what is read of a text file of a foreign image, in bytes.
const maxText = 8 << 20

// classify tells what a tree is: "root", a sort of root that imgmut cannot work
// in, or "" for something else.
func classify(t *Tree) string {
	switch {
	case exists(t, "ostree/repo"):
		return "an ostree deployment, which imgmut cannot change yet"
	case exists(t, "etc/os-release"), exists(t, "usr/lib/os-release"):
		return "root"
	}
	for _, subvolume := range []string{"root", "@", "@rootfs"} {
		if exists(t, subvolume+"/usr/lib/os-release") || exists(t, subvolume+"/etc/os-release") {
			return fmt.Sprintf("its operating system in the subvolume %q, which is not the default one (btrfs subvolume set-default makes it so)", subvolume)
		}
	}
	return ""
}

func exists(t *Tree, name string) bool {
	_, err := fs.Stat(t, name)
	return err == nil
}

// readText reads a text file, or nothing if it is none or too large for one.
func readText(t fs.FS, name string) string {
	if fi, err := fs.Stat(t, name); err != nil || !fi.Mode().IsRegular() || fi.Size() > maxText {
		return ""
	}
	b, err := fs.ReadFile(t, name)
	if err != nil {
		return ""
	}
	return string(b)
}

// osName reads ID and VERSION_ID (os-release(5)).
func osName(t *Tree) string {
	text := readText(t, "etc/os-release")
	if text == "" {
		text = readText(t, "usr/lib/os-release")
	}
	r := ParseOSRelease(text)
	return strings.TrimSpace(r["ID"] + " " + r["VERSION_ID"])
}

var selinuxOn = regexp.MustCompile(`(?m)^\s*SELINUX\s*=\s*(enforcing|permissive)\s*$`)

// usesSELinux tells whether the system labels its files (selinux_config(5)).
func usesSELinux(t *Tree) bool { return selinuxOn.MatchString(readText(t, "etc/selinux/config")) }

// ParseOSRelease reads the assignments of an os-release file (os-release(5)).
func ParseOSRelease(text string) map[string]string {
	vars := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			vars[key] = strings.Trim(value, `"'`)
		}
	}
	return vars
}

// machineArch reads the architecture off a program that every system has, in
// systemd's words.
func machineArch(t *Tree) (string, error) {
	for _, name := range []string{"usr/lib/systemd/systemd", "lib/systemd/systemd", "bin/sh", "usr/bin/sh", "bin/busybox", "sbin/init"} {
		f, err := t.Open(name)
		if err != nil {
			continue
		}
		defer f.Close()
		at, ok := f.(io.ReaderAt)
		if !ok {
			continue
		}
		program, err := elf.NewFile(at)
		if err != nil {
			continue
		}
		switch program.Machine {
		case elf.EM_X86_64:
			return "x86-64", nil
		case elf.EM_AARCH64:
			return "arm64", nil
		}
		return "", fault.New(fault.Image, "", "the image is for %s: imgmut knows x86-64 and arm64", program.Machine)
	}
	return "", fault.New(fault.Image, "check that the root filesystem is whole",
		"the image's root holds no program that tells its architecture (no /bin/sh, no systemd)")
}
