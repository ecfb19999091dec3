package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// TestBootKinds runs testdata/kernels: the kinds as recipes have them.
func TestBootKinds(t *testing.T) { runScripts(t, "testdata/kernels", []string{"debian-cloud"}) }

// onFAT reads a file of a FAT volume by mtools.
func onFAT(t *testing.T, image string, partition int, name string) string {
	t.Helper()
	return fixtures.Program(t, "", "sh", "-euc",
		`mtype -i "$1@@$((512 * $(partx --nr "$2" --noheadings --output START "$1")))" "::$3"`, "sh", image, fmt.Sprint(partition), name)
}

// TestKernelArgs changes command lines where real layouts keep them, and reads them with
// other programs.
func TestKernelArgs(t *testing.T) {
	l := newLab(t)
	const step = "  - kernel-args: {add: [made=1], remove: [console], set: [panic=9]}\n"
	for _, tc := range []struct {
		layout    string
		partition int
		options   string
		files     []string // patterns, or :: before the path in a FAT volume
	}{
		{"debian-cloud", 1, "", []string{"boot/grub/grub.cfg", "etc/default/grub"}},
		{"ubuntu-cloud", 16, "", []string{"grub/grub.cfg"}},
		{"mbr-boot", 1, "", []string{"grub/grub.cfg"}},
		{"fedora", 3, "", []string{"loader/entries/*.conf"}},
		{"rhel", 3, "", []string{"loader/entries/*.conf"}},
		{"bootc-new", 3, "", []string{"loader/entries/*.conf"}},
		{"debian-12", 1, "", []string{"::/loader/entries/debian.conf"}},
		{"debian-13", 1, "", []string{"::/loader/entries/debian.conf"}},
		{"raspberry", 1, "", []string{"::/cmdline.txt"}},
	} {
		t.Run(tc.layout, func(t *testing.T) {
			l := &lab{t: t, store: l.store}
			image, _ := l.apply(fixtures.Image(t, tc.layout), step)
			for _, file := range tc.files {
				var text string
				if name, fat := strings.CutPrefix(file, "::"); fat {
					text = onFAT(t, image, tc.partition, name)
				} else {
					text = readOutside(t, image, tc.partition, tc.options, file)
				}
				lines := 0
				for line := range strings.Lines(text) {
					if !strings.Contains(line, "root=") && !strings.HasPrefix(line, "GRUB_CMDLINE_LINUX=") {
						continue
					}
					if strings.HasPrefix(strings.TrimSpace(line), "set root=") || strings.Contains(line, "--set=root") {
						continue
					}
					lines++
					if !strings.Contains(line, "made=1") || !strings.Contains(line, "panic=9") || strings.Contains(line, "console=") {
						t.Errorf("%s has %s", file, line)
					}
				}
				if lines == 0 {
					t.Errorf("%s has no command line:\n%s", file, text)
				}
			}
		})
	}
	t.Run("repart", func(t *testing.T) { // a UKI with its command line in it
		base := fixtures.Image(t, "repart")
		was := sumOf(t, base)
		_, stderr := l.run(5, "apply", "--replace", l.recipe("version: 1\nname: made\nbase: "+base+"\nsteps:\n"+step))
		if !strings.Contains(stderr, "/EFI/Linux/debian_12.efi has its command line in it, with the kernel: ") || sumOf(t, base) != was {
			t.Error(stderr)
		}
	})
	l.wantClean()
}

// TestInitramfs makes initrds anew where the image wants them for one machine only.
func TestInitramfs(t *testing.T) {
	l := newLab(t)
	_, said := l.apply(fixtures.Image(t, "debian-12"), `  - run: |
      sed -i 's/^MODULES=.*/MODULES=dep/; s/^COMPRESS=.*/COMPRESS=gzip/' /etc/initramfs-tools/initramfs.conf
  - initramfs: all
  - run: |
      lsinitramfs /boot/initrd.img-* | grep -c '/virtio_\(blk\|pci\|net\|scsi\).ko'
      grep ^MODULES= /etc/initramfs-tools/initramfs.conf; ls /etc/initramfs-tools/conf.d | wc -l
`)
	if !strings.Contains(said, "| 4\n") || !strings.Contains(said, "| MODULES=dep\n") || !strings.Contains(said, "| 0\n") {
		t.Error(said)
	}
	l.wantClean()
}

// TestLentToADeployment: a step in a deployment of ostree that is laid over has the disk as
// well, and what is changed of the command line is in the entries of the new deployment and
// of the one before.
func TestLentToADeployment(t *testing.T) {
	l := newLab(t)
	image, said := l.apply(fixtures.Image(t, "bootc-new"), `  - run:
      boot: true
      script: |
        echo disk $(ls /dev/vda*) $(ls /dev/disk/by-uuid | wc -l)
        dd if=/dev/vda4 of=/dev/null bs=1M count=1
        echo made >/usr/bin/made
  - kernel-args: [made=1]
ostree: {mode: commit}
`)
	if !strings.Contains(said, "| disk /dev/vda /dev/vda1 /dev/vda2 /dev/vda3 /dev/vda4 3\n") {
		t.Error(said)
	}
	got := fixtures.Program(t, "", "unshare", "--mount", "sh", "-euc", inside, "sh", image,
		`cat $d/usr/bin/made; [ ! -e $o/usr/bin/made ]
grep -l '^options .*made=1' boot/loader/entries/* | wc -l; ls boot/loader/entries | wc -l`)
	if got != "made\n2\n2\n" {
		t.Errorf("the image has %q", got)
	}
	l.wantClean()
}

// TestInitrdToolInTheStep: a program for initrds that a step installs finds the word that
// they are for any machine. Of that word nothing stays, of the program its directory.
func TestInitrdToolInTheStep(t *testing.T) {
	l := newLab(t)
	_, said := l.apply(fixtures.Image(t, "debian-12"), `  - run: |
      apt-get --version >/dev/null
      printf '#!/bin/sh\ncat /etc/dracut.conf.d/*' >/usr/bin/dracut
      chmod +x /usr/bin/dracut
      dracut
  - run: {boot: false, script: 'stat -c "left %U:%a:%h" /etc/dracut.conf.d; ls -A /etc/dracut.conf.d | wc -l'}
`)
	if !strings.Contains(said, "| hostonly=\"no\"\n") || !strings.Contains(said, "| left root:755:2\n") || !strings.Contains(said, "| 0\n") {
		t.Error(said)
	}
	l.wantClean()
}

// TestSystemdBoot installs it with an entry for the kernel of an image that has never
// started: of the image, and of no machine.
func TestSystemdBoot(t *testing.T) {
	l := newLab(t)
	image, _ := l.apply(fixtures.Image(t, "debian-13"), `  - run: {script: "rm -r /efi/loader /efi/debian /efi/EFI", boot: true}
  - bootloader: systemd-boot
`)
	list, err := exec.Command("mdir", "-i", image+"@@1M", "-b", "-/", "::/").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	entry := ""
	for line := range strings.Lines(string(list)) {
		if strings.HasPrefix(line, "::/loader/entries/debian-") {
			entry = strings.TrimPrefix(strings.TrimSpace(line), "::")
		}
	}
	for _, want := range []string{"::/EFI/BOOT/BOOTX64.EFI", "::/EFI/systemd/systemd-bootx64.efi", "/linux\n", "/initrd\n"} {
		if !strings.Contains(string(list), want) {
			t.Errorf("the ESP has no %s:\n%s", want, list)
		}
	}
	if strings.Contains(string(list), "random-seed") {
		t.Errorf("all machines would have one random seed:\n%s", list)
	}
	text := onFAT(t, image, 1, entry)
	if !strings.Contains(text, "options    root=UUID="+rootUUID+" ro\n") || strings.Contains(text, "machine_id") {
		t.Errorf("the entry is\n%s", text)
	}
	l.wantClean()
}

// TestGRUBforEFI installs it for removable media, and for a firmware that is told of it.
func TestGRUBforEFI(t *testing.T) {
	l := newLab(t)
	for path, want := range map[string]string{"removable": "::/EFI/BOOT/BOOTX64.EFI", "vendor": "::/EFI/debian/shimx64.efi"} {
		image, _ := l.apply(fixtures.Image(t, "debian-cloud"),
			"  - run: {script: \"rm -r /boot/efi/EFI\", boot: true}\n  - bootloader: {install: grub-efi, path: "+path+"}\n")
		list := fixtures.Program(t, "", "sh", "-euc",
			`mdir -b -/ -i "$1@@$((512 * $(partx --nr 15 --noheadings --output START "$1")))" ::/EFI`, "sh", image)
		if !strings.Contains(list, want) || strings.Contains(list, "::/EFI/BOOT/") != (path == "removable") {
			t.Errorf("%s: the ESP has\n%s", path, list)
		}
	}
	l.wantClean()
}
