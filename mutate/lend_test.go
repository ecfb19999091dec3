package mutate

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/recipes"
)

// treeOf is an image with some files.
func treeOf(t *testing.T, files map[string]string) *disk.Tree {
	t.Helper()
	dir := t.TempDir()
	for file, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return disk.TreeAt(root)
}

// TestSettings: what a program for initrds or kernels reads is there before the program is,
// if the step may install it.
func TestSettings(t *testing.T) {
	const tools, dracut, mkinitcpio = "/etc/initramfs-tools/conf.d/zzz-imgmut", "/etc/dracut.conf.d/zzz-imgmut.conf",
		"/etc/mkinitcpio.conf.d/zzz-imgmut.conf"
	kernels := []string{"/etc/kernel/cmdline", "/etc/kernel/entry-token"}
	for name, want := range map[string][]string{
		"etc/x":                {dracut},
		"usr/bin/dpkg":         {tools, dracut},
		"usr/sbin/mkinitramfs": {tools, dracut},
		"usr/bin/pacman":       {dracut, mkinitcpio},
		"usr/bin/mkinitcpio":   {dracut, mkinitcpio},
	} {
		var got []string
		for _, c := range settings(treeOf(t, map[string]string{name: ""}), "root=x") {
			if got = append(got, c.Path); c.Reader == "" {
				t.Errorf("%s: it is not told for which program %s is", name, c.Path)
			}
		}
		if want = append(want, kernels...); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestKernelInstallIsTold: by which name and with which command line entries are made, of
// an image that says neither; of another nothing is told.
func TestKernelInstallIsTold(t *testing.T) {
	for name, tc := range map[string]struct {
		files          map[string]string
		token, cmdline string
	}{
		"a new image": {map[string]string{"etc/machine-id": "", "usr/lib/os-release": "ID=debian\n"}, "debian\n", "root=x\n"},
		"an image with a name": {map[string]string{"etc/machine-id": "uninitialized\n", "usr/lib/os-release": "ID=a\nIMAGE_ID=b\n"},
			"b\n", "root=x\n"},
		"no os-release":    {map[string]string{"etc/x": ""}, "linux\n", "root=x\n"},
		"a hostile name":   {map[string]string{"usr/lib/os-release": "ID=../../x\n"}, "linux\n", "root=x\n"},
		"a machine":        {map[string]string{"etc/machine-id": "0123456789abcdef0123456789abcdef\n"}, "", "root=x\n"},
		"a token":          {map[string]string{"etc/machine-id": "", "etc/kernel/entry-token": "t"}, "", "root=x\n"},
		"a command line":   {map[string]string{"etc/kernel/cmdline": "a", "usr/lib/os-release": "ID=c"}, "c\n", ""},
		"one of the maker": {map[string]string{"usr/lib/kernel/cmdline": "a", "usr/lib/os-release": "ID=c"}, "c\n", ""},
	} {
		got := map[string]string{}
		for _, c := range kernelInstall(treeOf(t, tc.files), "root=x") {
			got[c.Path] = c.Content
		}
		if got["/etc/kernel/entry-token"] != tc.token || got["/etc/kernel/cmdline"] != tc.cmdline {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestPlainOnly: what a system of ostree has of its commits is refused before anything runs.
func TestPlainOnly(t *testing.T) {
	r, err := recipes.Parse("r.yaml", []byte("version: 1\nname: a\nbase: b\nsteps:\n"+
		"- initramfs: all\n- kernel-args: [a]\n- bootloader: grub-bios\n"))
	if err != nil {
		t.Fatal(err)
	}
	steps, err := step.DecodeAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkPlainOnly(&disk.Layout{}, r.Steps, steps); err != nil {
		t.Error(err)
	}
	var problems recipes.Problems
	deployed := &disk.Layout{Mounts: []disk.Mounted{{Mountpoint: "/", From: "ostree's deployment", Sub: "ostree/deploy/a"}}}
	if err := checkPlainOnly(deployed, r.Steps, steps); !errors.As(err, &problems) || len(problems) != 2 || problems[0].Hint == "" {
		t.Errorf("%v", err)
	}
}
