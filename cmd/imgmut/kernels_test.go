package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// apply builds an image of a layout by steps, in YAML, and gives its path and what was
// said meanwhile.
func (l *lab) apply(base, steps string) (image, said string) {
	l.t.Helper()
	out, stderr := l.run(0, "apply", "--replace", "--no-cache", l.recipe("version: 1\nname: made\nbase: "+base+"\nsteps:\n"+steps))
	return strings.TrimSpace(out), stderr
}

// hostPrefix runs imgmut on Debian 13, where it can see a base.
func hostPrefix(t *testing.T, base string) []string {
	return []string{"unshare", "--mount", "sh", "-euc", enter, "sh", fixtures.HostTree(t), os.TempDir(), filepath.Dir(base)}
}

const (
	rootUUID = "5173b296-a04e-4fc2-9365-4e90c71b2a05" // of the layouts' root (fixtures/image.sh)
	aboutIt  = "\n      findmnt --noheadings --output SOURCE /; grub-probe --target=device /boot/; systemd-detect-virt --container || true\n"
)

// menus are layouts, and how GRUB's menu that is made in them names their root.
var menus = []struct {
	layout, command string
	partition       int
	options, file   string
	want            []string
	host257         bool
}{
	{"debian-cloud", "update-grub", 1, "", "boot/grub/grub.cfg", []string{" root=PARTUUID="}, true},
	{"ubuntu-cloud", "update-grub", 16, "", "grub/grub.cfg", []string{" root=UUID=" + rootUUID}, false},
	{"fedora", "grub-mkconfig -o /boot/grub2/grub.cfg", 3, "", "grub2/grub.cfg",
		[]string{" root=UUID=" + rootUUID + " ", " rootflags=subvol=root "}, true},
	{"suse", "grub-mkconfig -o /boot/grub2/grub.cfg", 3, "subvol=@/.snapshots/1/snapshot", "boot/grub2/grub.cfg",
		[]string{" root=UUID=" + rootUUID + " "}, false},
	{"rhel", "grub-mkconfig -o /boot/grub2/grub.cfg", 3, "", "grub2/grub.cfg", []string{" root=UUID=" + rootUUID + " "}, false},
	{"mbr-boot", "update-grub", 1, "", "grub/grub.cfg", []string{" root=UUID=" + rootUUID + " "}, true},
	{"mbr-logical", "update-grub", 1, "", "grub/grub.cfg", []string{" root=UUID=" + rootUUID + " "}, false},
	{"4k", "update-grub", 2, "", "boot/grub/grub.cfg", []string{" root=UUID=" + rootUUID + " "}, false},
}

// TestMenu makes GRUB's menu in a step: it starts the image's own root, by names that are
// true on any machine, and knows of nothing else.
func TestMenu(t *testing.T) {
	l := newLab(t)
	for _, tc := range menus {
		base := fixtures.Image(t, tc.layout)
		for _, host := range []string{"own", "257"} {
			if host == "257" && !tc.host257 {
				continue
			}
			t.Run(tc.layout+" "+host, func(t *testing.T) {
				l := &lab{t: t, store: l.store}
				if host == "257" {
					l.prefix = hostPrefix(t, base)
				}
				// With the disks of this machine looked for, if anything were to find them.
				image, said := l.apply(base, "  - run: |\n      mkdir -p /boot/grub; echo GRUB_DISABLE_OS_PROBER=false >>/etc/default/grub\n      "+
					tc.command+aboutIt)
				menu := readOutside(t, image, tc.partition, tc.options, tc.file)
				for _, want := range tc.want {
					if !strings.Contains(menu, want) {
						t.Errorf("the menu has no %q:\n%s\n%s", want, menu, said)
					}
				}
				for _, bad := range []string{"loop", "/dev/", "os-prober-"} {
					for line := range strings.Lines(menu) {
						if strings.Contains(line, bad) && !strings.HasPrefix(line, "#") {
							t.Errorf("the menu has %s", line)
						}
					}
				}
				if !strings.Contains(said, "| /dev/vda") || !strings.Contains(said, "| none") {
					t.Errorf("the step sees something else than a virtual machine:\n%s", said)
				}
			})
		}
	}
	l.wantClean()
}

// bootCode is what firmware finds of GRUB on a disk outside of filesystems.
func bootCode(t *testing.T, image string, offset, size int64) []byte {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.MultiReader(io.NewSectionReader(f, 0, 440), io.NewSectionReader(f, offset, size)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestBootCode installs GRUB for BIOS where a step has removed it: byte for byte what
// grub-install wrote to a loop device when the layout was made.
func TestBootCode(t *testing.T) {
	l := newLab(t)
	for _, tc := range []struct {
		layout       string
		offset, size int64 // of what is beside the first sector
		erase        string
	}{
		{"debian-cloud", 1 << 20, 3 << 20, "dd if=/dev/zero of=/dev/vda14 bs=1M count=3"},
		{"mbr-boot", 512, 1<<20 - 512, "dd if=/dev/zero of=/dev/vda bs=512 seek=1 count=2047 conv=notrunc"},
	} {
		base := fixtures.Image(t, tc.layout)
		want := bootCode(t, base, tc.offset, tc.size)
		erase := "dd if=/dev/zero of=/dev/vda bs=440 count=1 conv=notrunc; " + tc.erase
		for host, prefix := range map[string][]string{"own": nil, "257": hostPrefix(t, base)} {
			t.Run(tc.layout+" "+host, func(t *testing.T) {
				l := &lab{t: t, store: l.store, prefix: prefix}
				image, _ := l.apply(base, fmt.Sprintf("  - run: {script: %q, boot: true}\n", erase))
				if !bytes.Equal(bootCode(t, image, tc.offset, tc.size), make([]byte, 440+tc.size)) {
					t.Fatal("what a step erased is still there")
				}
				for _, step := range []string{"  - run: grub-install --target=i386-pc /dev/vda\n", "  - bootloader: grub-bios\n"} {
					image, _ := l.apply(base, fmt.Sprintf("  - run: {script: %q, boot: true}\n", erase)+step)
					if got := bootCode(t, image, tc.offset, tc.size); !bytes.Equal(got, want) {
						t.Errorf("%s: other bytes than those of grub-install on a loop device", step)
					}
				}
			})
		}
	}
	l.wantClean()
}

// otherKernel is a kernel that is not installed in a base, and can be had.
func (l *lab) otherKernel(base string) string {
	l.t.Helper()
	_, said := l.apply(base, `  - network: true
    run: |
      apt-get update -qq
      apt-cache search --names-only '^linux-image-6\.[0-9.]+[-+].*cloud-amd64$' | sort | while read -r name _; do
        dpkg -s "$name" >/dev/null 2>&1 || { echo "other: ${name#linux-image-}"; break; }
      done
`)
	_, name, ok := strings.Cut(said, "| other: ")
	if !ok {
		l.t.Fatalf("the mirror has no kernel:\n%s", said)
	}
	name, _, _ = strings.Cut(name, "\n")
	return name
}

// TestKernelPackages installs a kernel beside the one there is, and purges that again:
// initrd and menu, or entries, follow.
func TestKernelPackages(t *testing.T) {
	l := newLab(t)
	for _, tc := range []struct {
		layout string
		starts func(t *testing.T, image string) string // what its boot loader says
		want   string                                  // of it, with the kernel in place of KERNEL
		initrd func(t *testing.T, image, kernel string) string
	}{
		{"debian-cloud", func(t *testing.T, image string) string {
			return readOutside(t, image, 1, "", "boot/grub/grub.cfg")
		}, "/boot/vmlinuz-KERNEL root=PARTUUID=", func(t *testing.T, image, kernel string) string {
			return readOutside(t, image, 1, "", "boot/initrd.img-"+kernel)
		}},
		{"debian-13", func(t *testing.T, image string) string {
			return fixtures.Program(t, "", "sh", "-euc", `mdir -b -i "$1@@1M" ::/loader/entries | while read -r f; do mtype -i "$1@@1M" "$f"; done`,
				"sh", image)
		}, "options    root=UUID=" + rootUUID + " ro console=ttyS0\nlinux      /debian/KERNEL/linux\n", func(
			t *testing.T, image, kernel string,
		) string {
			return onFAT(t, image, 1, "/debian/"+kernel+"/initrd.img-"+kernel)
		}},
	} {
		t.Run(tc.layout, func(t *testing.T) {
			l := &lab{t: t, store: l.store}
			base := fixtures.Image(t, tc.layout)
			kernel := l.otherKernel(base)
			image, said := l.apply(base, "  - packages: {install: [linux-image-"+kernel+"], update: true}\n")
			if text := tc.starts(t, image); !strings.Contains(text, strings.ReplaceAll(tc.want, "KERNEL", kernel)) {
				t.Errorf("the boot loader does not start %s:\n%s\n%s", kernel, text, said)
			}
			if t.Failed() {
				return
			}
			if initrd := tc.initrd(t, image, kernel); len(initrd) < 4<<20 {
				t.Errorf("its initrd has %d bytes", len(initrd))
			}
			l.run(0, "import", image, "with-"+tc.layout)
			image, said = l.apply("with-"+tc.layout, "  - run: DEBIAN_FRONTEND=noninteractive apt-get purge -y linux-image-"+kernel+"\n")
			if text := tc.starts(t, image); strings.Contains(text, kernel) || !strings.Contains(text, "root=") {
				t.Errorf("the boot loader after %s is gone:\n%s\n%s", kernel, text, said)
			}
		})
	}
	l.wantClean()
}
