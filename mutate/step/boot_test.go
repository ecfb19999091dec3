package step_test

import (
	"context"
	"io/fs"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/step"
)

// TestBoots: which steps get the disk, by what they say or do.
func TestBoots(t *testing.T) {
	for in, want := range map[string]bool{
		`run: "true"`: false, `run: "systemctl enable a.service"`: false, `run: "echo adapting; ./my-apt-thing; cat /etc/dracut.conf"`: false,
		`run: "update-grub"`: true, `run: "/usr/sbin/update-initramfs -u"`: true, `run: [dracut, --force]`: true,
		`run: "x\napt-get install -y linux-image-amd64\n"`: true, `run: "bootctl install || true"`: true,
		`run: "dnf -y upgrade kernel"`: true, `run: "grub2-mkconfig -o /boot/grub2/grub.cfg"`: true, `run: "kernel-install add 1 x"`: true,
		`run: {script: x, boot: true}`: true, `run: {script: update-grub, boot: false}`: false,
		`packages: [a]`: true, `packages: {remove: [a]}`: true, `write: {path: /boot/x}`: false, `copy: {from: a, to: /boot/x}`: false,
		`kernel-args: [a]`: true, `initramfs: all`: true, `bootloader: grub-bios`: true, `systemd: {enable: [a.service]}`: false,
	} {
		all, err := step.DecodeAll(parse(t, "- "+in))
		if err != nil {
			t.Fatal(err)
		}
		if got := step.Boots(all[0].Value); got != want {
			t.Errorf("%s: %t, want %t", in, got, want)
		}
	}
}

// shown is a guest that has files, and keeps what is put there.
func shown(files map[string]string) *recorder {
	g := &recorder{files: map[string]string{}, keeps: true}
	for name, text := range files {
		g.files[name] = text
	}
	return g
}

const entryOf = "title x\nversion 6.1.0\nlinux /boot/vmlinuz-6.1.0\ninitrd /boot/initrd-6.1.0\noptions root=UUID=x quiet\n"

// TestKernelArgsOfLoaders: each loader's file is changed, and what is made of others is
// made anew.
func TestKernelArgsOfLoaders(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string // in what was done, or in the error
	}{
		{"entries", map[string]string{"/boot/loader/entries/a.conf": entryOf, "/boot/vmlinuz-6.1.0": ""},
			`put /boot/loader/entries/a.conf 0000 0:0 "title x\nversion 6.1.0\nlinux /boot/vmlinuz-6.1.0\n` +
				`initrd /boot/initrd-6.1.0\noptions root=UUID=x a=1\n"`},
		{"a file for entries to come", map[string]string{"/boot/loader/entries/a.conf": entryOf, "/etc/kernel/cmdline": "root=UUID=x quiet\n"},
			`put /etc/kernel/cmdline 0000 0:0 "root=UUID=x a=1\n"`},
		{"a menu that is not made of the defaults", map[string]string{
			"/boot/grub/grub.cfg": "menuentry x {\nlinux /boot/vmlinuz-6.1.0 root=UUID=x quiet\n}\n",
			"/etc/default/grub":   "GRUB_CMDLINE_LINUX=quiet\n"}, "/boot/grub/grub.cfg:2, which starts by default, has no a=1"},
		{"nothing", map[string]string{"/etc/fstab": ""}, "no file of the image says what the kernel's command line is"},
	} {
		all, err := step.DecodeAll(parse(t, "- kernel-args: {add: [a=1], remove: [quiet]}"))
		if err != nil {
			t.Fatal(err)
		}
		g := shown(tc.files)
		err = all[0].Value.Apply(t.Context(), g, nil)
		said := strings.Join(g.log, "\n")
		if err != nil {
			said += "\n" + err.Error()
		}
		if !strings.Contains(said, tc.want) {
			t.Errorf("%s:\n%s\nwant %s", tc.name, said, tc.want)
		}
	}
}

// TestInitramfsOfKernels: for each kernel that is installed, where its entry has it.
func TestInitramfsOfKernels(t *testing.T) {
	files := map[string]string{
		"/usr/lib/modules/6.1.0/vmlinuz": "", "/usr/lib/modules/6.2.0/modules.dep": "", "/boot/vmlinuz-6.3.0": "", "/usr/lib/modules/6.3.0/x": "",
		"/boot/loader/entries/a.conf": entryOf, "/boot/initrd-6.1.0": "", "/boot/vmlinuz-6.1.0": "",
	}
	for in, want := range map[string]string{
		"all": "initrd=/boot/initrd-6.1.0 | version=6.1.0\ninitrd= | version=6.3.0\n", "[6.3.0]": "initrd= | version=6.3.0\n",
		"[6.2.0]": "no kernel 6.2.0 is installed (there are 6.1.0, 6.3.0)",
	} {
		all, err := step.DecodeAll(parse(t, "- initramfs: "+in))
		if err != nil {
			t.Fatal(err)
		}
		g := shown(files)
		err = all[0].Value.Apply(t.Context(), g, nil)
		said := ""
		for _, line := range g.log {
			said += line[strings.LastIndex(line, "initrd="):] + "\n"
		}
		if err != nil {
			said += err.Error()
		}
		if said != want {
			t.Errorf("%s: %q, want %q", in, said, want)
		}
	}
	all, _ := step.DecodeAll(parse(t, "- initramfs: all"))
	if err := all[0].Value.Apply(t.Context(), shown(map[string]string{"/sysroot/ostree/repo/config": ""}), nil); err == nil ||
		!strings.Contains(err.Error(), "part of its commit") {
		t.Errorf("a system of ostree: %v", err)
	}
}

// unready is a guest in which nothing can be looked at.
type unready struct{ *recorder }

func (unready) Loaders() (*boot.Loaders, error)                    { return nil, errRun }
func (unready) Files() fs.FS                                       { return shown(nil).Files() }
func (unready) Stat(context.Context, string) (*agent.Stat, error)  { return nil, errRun }
func (u unready) Run(ctx context.Context, c agent.Command) error   { return u.recorder.Run(ctx, c) }
func (u unready) ReadFile(context.Context, string) ([]byte, error) { return nil, errRun }

// TestBootloaderNeedsSomethingToStart: to install one alone is not enough.
func TestBootloaderNeedsSomethingToStart(t *testing.T) {
	all, err := step.DecodeAll(parse(t, "- bootloader: systemd-boot"))
	if err != nil {
		t.Fatal(err)
	}
	g := shown(nil)
	err = all[0].Value.Apply(t.Context(), g, nil)
	if err == nil || !strings.Contains(err.Error(), "is a kernel installed?") || len(g.log) != 1 {
		t.Errorf("Apply: %v after %q", err, g.log)
	}
	for _, kind := range []string{"bootloader: grub-bios", "kernel-args: [a]"} {
		all, _ := step.DecodeAll(parse(t, "- "+kind))
		if err := all[0].Value.Apply(t.Context(), unready{shown(nil)}, nil); err == nil {
			t.Errorf("%s: no error where loaders cannot be read", kind)
		}
	}
}
