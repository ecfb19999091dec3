package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

func sumOf(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// changed lists the files of an image that are others than those of its base, by facts.
func changed(t *testing.T, base, image string) (names []string) {
	t.Helper()
	before, after := facts(t, base), facts(t, image)
	for name := range after {
		if before[name] != after[name] {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			names = append(names, "-"+name)
		}
	}
	slices.Sort(names)
	return names
}

// TestLentDisk: a step that writes boot code, and tries whatever else one can do to a disk,
// changes the boot code of its own image, and nothing else. One that writes anywhere else
// fails, and its work is not lost without a word.
func TestLentDisk(t *testing.T) {
	l := newLab(t)
	base := fixtures.Image(t, "debian-cloud")
	was := sumOf(t, base)
	for host, prefix := range map[string][]string{"own": nil, "257": hostPrefix(t, base)} {
		t.Run(host, func(t *testing.T) {
			l := &lab{t: t, store: l.store, prefix: prefix}
			image, said := l.apply(base, `  - run:
      boot: true
      script: |
        set +e
        try() { if "$@" 2>/dev/null; then echo "broke: $*"; else echo "held: $*"; fi; }
        for request in -d -c; do try losetup $request /dev/vda; done
        for request in --setro --rereadpt --flushbufs; do try blockdev $request /dev/vda; done
        try partx --delete /dev/vda
        try mknod /root/disk b 7 0
        try mknod /dev/disk0 b 7 0
        try mount /dev/vda1 /mnt
        try touch /dev/file
        try umount /boot/efi
        echo nodes: $(find / -xdev -type b; find /dev -type b | sort)
        yes hostile | dd of=/dev/vda bs=440 count=1 iflag=fullblock conv=notrunc 2>/dev/null
        yes hostile | dd of=/dev/vda14 bs=1M iflag=fullblock 2>/dev/null
        sync
  - run: |
      echo later: $(find / -type b 2>/dev/null) $(ls -d /dev/disk /dev/block /run/udev 2>/dev/null)
`)
			if strings.Contains(said, "| broke: ") || strings.Count(said, "| held: ") != 11 {
				t.Errorf("what a step tried:\n%s", said)
			}
			if !strings.Contains(said, "| nodes: /dev/vda /dev/vda1 /dev/vda14 /dev/vda15\n") || !strings.Contains(said, "| later:\n") {
				t.Errorf("the steps have other nodes:\n%s", said)
			}
			code := bootCode(t, image, 1<<20, 3<<20)
			if !strings.HasPrefix(string(code[:440]), "hostile\n") || !strings.HasPrefix(string(code[440:]), "hostile\n") {
				t.Errorf("the boot code is not what the step wrote: %q", code[:16])
			}
			if got := changed(t, base, image); !slices.Equal(got, []string{"1:/boot/grub/grub.cfg", "1:/etc/fstab"}) {
				t.Errorf("changed: %q", got) // names of partitions follow in these
			}
			for script, want := range map[string]string{ // what is no boot code would be lost
				"for node in $(find /dev -type b); do head -c 150M /dev/urandom >$node || true; done": "the partition table",
				"e2label /dev/vda1 spare":                     "partition 1 (ext4)",
				"echo | dd of=/dev/vda15 seek=1 conv=notrunc": "partition 15 (vfat)",
			} {
				_, stderr := l.run(5, "apply", "--replace", l.recipe("version: 1\nname: made\nbase: "+base+"\nsteps:\n"+
					fmt.Sprintf("  - run: {script: %q, boot: true}\n", script)))
				if !strings.Contains(stderr, "it has written to "+want) || !strings.Contains(stderr, "hint: of the disk itself") {
					t.Errorf("%s: %s", script, stderr)
				}
			}
			if sumOf(t, base) != was {
				t.Fatal("the base has changed")
			}
		})
	}
	l.wantClean()
}

// TestLentESP: what a step does below the EFI system partition is in the volume, and
// nothing else of that has changed.
func TestLentESP(t *testing.T) {
	l := newLab(t)
	base := fixtures.Image(t, "debian-12")
	image, _ := l.apply(base, `  - run:
      boot: true
      script: |
        cd /boot/efi
        findmnt --noheadings --output SOURCE . | grep -q /dev/vda1
        mkdir -p EFI/made/empty 'EFI/made/a long name'
        echo text > 'EFI/made/a long name/Some File.txt'
        rm loader/loader.conf
        mkdir -p gone EFI/was/deep
        rmdir gone
        echo 1 > EFI/was/deep/one
  - write: {path: /boot/efi/EFI/made/written, content: "x"}
  - run:
      boot: true
      script: |
        test "$(cat /boot/efi/EFI/made/written)" = x
        rm -r /boot/efi/EFI/made/empty
        printf more >> /boot/efi/EFI/made/'a long name/Some File.txt'
        mv /boot/efi/EFI/was /boot/efi/EFI/became
`)
	want := []string{"-1:/loader/loader.conf", "1:/EFI", "1:/EFI/became", "1:/EFI/became/deep", "1:/EFI/became/deep/one", "1:/EFI/made",
		"1:/EFI/made/a long name", "1:/EFI/made/a long name/Some File.txt", "1:/EFI/made/written",
		"1:/loader/entries/debian.conf", "2:/etc/fstab"} // these two name a partition, and /EFI has more directories
	if got := changed(t, base, image); !slices.Equal(got, want) {
		t.Errorf("changed:\n%q, want\n%q", got, want)
	}
	if text := onFAT(t, image, 1, "/EFI/made/a long name/Some File.txt"); text != "text\nmore" {
		t.Errorf("the file has %q", text)
	}
	for _, file := range []string{base, image} { // the serial, which imgmut does not change unless it is asked to
		b, err := exec.Command("blkid", "--probe", "--offset", "1048576", "--output", "value", "--match-tag", "UUID", file).Output()
		if err != nil || strings.TrimSpace(string(b)) != "1A2B-3C4D" {
			t.Errorf("the serial of %s is %q, %v", file, b, err)
		}
	}
	fixtures.Program(t, "", "sh", "-euc", `dd if="$1" of="$2" bs=1M skip=1 count=64 status=none; fsck.vfat -n "$2"`,
		"sh", image, t.TempDir()+"/esp")

	for script, want := range map[string]string{
		"ln -s x /boot/efi/link":              "/boot/efi/link: a FAT volume has files and directories only",
		"echo > /boot/efi/Debian":             "FAT does not tell it from /boot/efi/",
		"head -c 99M /dev/zero >/boot/efi/xx": "No space left on device",
	} {
		_, stderr := l.run(5, "apply", "--replace", l.recipe("version: 1\nname: made\nbase: "+base+"\nsteps:\n"+
			fmt.Sprintf("  - run: {script: %q, boot: true}\n", script)))
		if !strings.Contains(stderr, want) {
			t.Errorf("%s: %s", script, stderr)
		}
	}
	l.wantClean()
}
