package ostree_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// system is a volume with one deployment, made by the machine's own ostree.
type system struct {
	t    *testing.T
	file string
	fs   string
}

// makeSystem makes a volume whose one deployment has what the script puts into the tree
// that is its working directory.
func makeSystem(t *testing.T, fs, script string) *system {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	s := &system{t, filepath.Join(t.TempDir(), "volume"), fs}
	fixtures.Program(t, "", "sh", "-euc", `
truncate -s 400M "$1"
mkfs.$2 -q "$1"
mkdir "$1.mnt" "$1.tree"
exec unshare --mount sh -euc '
	mount -o loop "$1" "$1.mnt"
	cd "$1.tree"
	mkdir -p usr/etc usr/bin usr/lib/modules/6.1 usr/lib/ostree boot dev proc run sys sysroot tmp var
	echo "PRETTY_NAME=\"A system\"" >usr/lib/os-release
	echo kernel >usr/lib/modules/6.1/vmlinuz
	echo initrd >usr/lib/modules/6.1/initramfs.img
	echo a >usr/etc/default
	printf "root:x:0:0::/root:/bin/sh\n" >usr/etc/passwd
	ln -s sysroot/ostree ostree
	eval "$2"
	ostree admin init-fs "$1.mnt"
	ostree config --repo="$1.mnt/ostree/repo" set sysroot.bootloader none
	ostree admin os-init os --sysroot="$1.mnt"
	ostree commit --repo="$1.mnt/ostree/repo" --branch=os/1 --bootable --tree=dir=. >&2
	ostree admin deploy --sysroot="$1.mnt" --os=os --karg=root=LABEL=x --karg=rw os/1 >&2
' sh "$1" "$3"`, "sh", s.file, fs, script)
	return s
}

// look runs a script in the volume, and gives what it prints.
func (s *system) look(script string) string {
	s.t.Helper()
	return fixtures.Program(s.t, "", "unshare", "--mount", "sh", "-euc",
		`mount -o loop "$1" "$1.mnt"; cd "$1.mnt"; d=$(echo ostree/deploy/os/deploy/*.0); eval "$2"`, "sh", s.file, script)
}

// change mounts the volume as imgmut does, and opens its sysroot.
func (s *system) change(f func(context.Context, *ostree.Sysroot) error) error {
	s.t.Helper()
	file, err := os.OpenFile(s.file, os.O_RDWR, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	// Whoever mounts it next is to see all of it.
	defer func() {
		file.Close()
		if err := mount.WaitReleased(s.t.Context(), s.file); err != nil {
			s.t.Error(err)
		}
	}()
	loop, err := mount.Loop(file, mount.LoopOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	defer loop.Close()
	m, err := mount.Detached(mount.Request{Device: loop.Name(), FS: s.fs})
	if err != nil {
		s.t.Fatal(err)
	}
	defer m.Close()
	sysroot, err := ostree.Open(ostree.Options{Root: m})
	if err != nil {
		return err
	}
	err = f(s.t.Context(), sysroot)
	if e := sysroot.Close(); e != nil {
		s.t.Error(e)
	}
	m.Close()
	if err := loop.Close(); err != nil {
		s.t.Error(err)
	}
	if err := mount.WaitReleased(s.t.Context(), s.file); err != nil {
		s.t.Error(err)
	}
	return err
}

// resolve gives the commit of the system's branch.
func resolve(ctx context.Context, r *ostree.Sysroot) (string, error) {
	return r.Run(ctx, "read a name", nil, "rev-parse", "--repo=/sysroot/ostree/repo", "os/1")
}

// TestSysroot: a commit and a deployment of it, by the machine's ostree, on each of the
// filesystems that systems of ostree have.
func TestSysroot(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			s := makeSystem(t, fs, "echo one >usr/bin/a")
			was := s.look(`sha256sum ostree/repo/config "$d/etc/default"`)
			err := s.change(func(ctx context.Context, r *ostree.Sysroot) error {
				first, err := resolve(ctx, r)
				if err != nil {
					return err
				}
				if err := r.Checkout(ctx, first, "ostree/tree"); err != nil {
					return err
				}
				c, err := r.Commit(ctx, ostree.Commit{Tree: "ostree/tree", Parent: first, Linked: true, Bootable: true,
					Metadata: map[string]string{"a.key": "its value"}})
				if err != nil {
					return err
				}
				var same [2]string
				for n := range same { // so many keys are in one order twice only if that is meant
					meta := map[string]string{}
					for key := range 20 {
						meta[fmt.Sprintf("key.%d", key)] = "value"
					}
					same[n], err = r.Commit(ctx, ostree.Commit{Tree: "ostree/tree", Linked: true, Metadata: meta,
						Options: []string{"--timestamp=2020-01-01T00:00:00Z"}})
					if err != nil {
						return err
					}
				}
				if same[0] != same[1] {
					t.Errorf("the same commit is %s and %s", same[0], same[1])
				}
				for key, want := range map[string]bool{"a.key": true, "b.key": false} {
					if has, err := r.HasMetadata(ctx, c, key); err != nil || has != want {
						t.Errorf("the commit has %s: %v, %v", key, has, err)
					}
				}
				if err := r.Deploy(ctx, ostree.Deploy{OS: "os", Commit: c, Origin: "[origin]\nrefspec=os/1\n"}); err != nil {
					return err
				}
				return r.Fsck(ctx)
			})
			if err != nil {
				t.Fatal(err)
			}
			if is := s.look(`d=$(ls -d ostree/deploy/os/deploy/*.0 | while read -r d; do
				[ "$(ls -id "$d" | cut -d" " -f1)" ] && grep -l os/1 "$d.origin" >/dev/null && echo "$d"; done | head -n 1)
				sha256sum ostree/repo/config "$d/etc/default"`); strings.Fields(is)[0] != strings.Fields(was)[0] {
				t.Errorf("the repository's configuration was changed:\n%s\n%s", was, is)
			}
			if got := s.look("ls boot/loader/entries | wc -l; ostree admin status --sysroot=."); !strings.HasPrefix(got, "2\n") {
				t.Errorf("deployments:\n%s", got)
			}
		})
	}
}

// hostile is a tree whose programs leave proof in it when they run, in each way that
// ostree runs programs of an image.
const hostile = `
for program in bwrap semodule grub2-mkconfig grub-mkconfig zipl true ostree sh; do
	for dir in usr/bin usr/sbin; do
		mkdir -p $dir
		cp "$PROVER" $dir/$program
	done
done
ln -s usr/bin usr/sbin .
mkdir -p usr/etc/selinux/targeted/contexts/files usr/etc/selinux/targeted/policy var/tmp
printf "SELINUX=enforcing\nSELINUXTYPE=targeted\n" >usr/etc/selinux/config
printf "/.* system_u:object_r:usr_t:s0\n" >usr/etc/selinux/targeted/contexts/files/file_contexts
: >usr/etc/selinux/targeted/policy/policy.33`

// grubMenu makes the image one with a menu of GRUB that ostree has the image make anew.
const grubMenu = `mkdir -p boot/grub2; ln -s ../loader/grub.cfg boot/grub2/grub.cfg; echo >boot/loader/grub.cfg
ostree config --repo=ostree/repo set sysroot.bootloader grub2
ostree config --repo=ostree/repo unset core.fsync || true`

// prover is a static program that leaves a file behind, wherever it runs.
func prover(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	const text = `package main

import "os"

func main() {
	for _, dir := range []string{"/", "/var/tmp/", "/etc/", "/tmp/", "/run/", "/var/", "/boot/", "./"} {
		os.WriteFile(dir+"imgmut-proof", []byte(os.Args[0]), 0o644)
	}
}
`
	if err := os.WriteFile(source, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CGO_ENABLED", "0")
	fixtures.Program(t, "", "go", "build", "-ldflags=-s -w", "-o", filepath.Join(dir, "prover"), source)
	return filepath.Join(dir, "prover")
}

// TestNothingOfTheImageRuns: an image with a policy of SELinux has ostree run its own
// semodule by bwrap, and one with a menu of GRUB its grub2-mkconfig, as the machine's root.
// That they would is shown by ostree itself, on another image of the same.
func TestNothingOfTheImageRuns(t *testing.T) {
	t.Setenv("PROVER", prover(t))
	const proof = `find . -name imgmut-proof`
	for name, before := range map[string]string{"semodule": "true", "grub2-mkconfig": grubMenu} {
		t.Run(name, func(t *testing.T) {
			// The machine's root is a directory of the test: it is what would be written to.
			victim, s := makeSystem(t, "ext4", hostile), makeSystem(t, "ext4", hostile)
			for _, v := range []*system{victim, s} {
				v.look(before)
			}
			if got := victim.look("ostree admin deploy --sysroot=. --os=os os/1 >/dev/null 2>&1 || true; " + proof); got == "" {
				t.Error("ostree itself runs no program of such an image: nothing is shown here")
			}
			err := s.change(func(ctx context.Context, r *ostree.Sysroot) error {
				c, err := resolve(ctx, r)
				if err != nil {
					return err
				}
				return r.Deploy(ctx, ostree.Deploy{OS: "os", Commit: c, Origin: "[origin]\nrefspec=os/1\n"})
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := s.look(proof); got != "" {
				t.Errorf("programs of the image ran: %s", got)
			}
			for _, dir := range []string{"/", "/var/tmp", "/etc", "/run", "/var", "/boot"} {
				if _, err := os.Stat(filepath.Join(dir, "imgmut-proof")); err == nil {
					t.Errorf("programs of the image ran, and wrote to the machine's %s", dir)
				}
			}
			if got := s.look("ls boot/loader/entries | wc -l"); got != "2\n" {
				t.Errorf("entries: %s", got)
			}
		})
	}
}

// TestLinksLeadNowhere: links in the place of what ostree writes to, and reads, reach no
// file of the machine.
func TestLinksLeadNowhere(t *testing.T) {
	outside := t.TempDir()
	for name, script := range map[string]string{
		"objects":     `rm -rf ostree/repo/objects; ln -s "$OUTSIDE" ostree/repo/objects`,
		"tmp":         `rm -rf ostree/repo/tmp; ln -s "$OUTSIDE" ostree/repo/tmp`,
		"config":      `rm ostree/repo/config; ln -s "$OUTSIDE" ostree/repo/config`,
		"deployments": `chattr -i $d; rm -rf ostree/deploy/os/deploy; ln -s "$OUTSIDE" ostree/deploy/os/deploy`,
		"boot":        `rm -rf boot; ln -s "$OUTSIDE" boot`,
		"etc":         `chattr -i $d; rm -rf $d/etc; ln -s /proc/1/root/etc $d/etc`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OUTSIDE", outside)
			s := makeSystem(t, "ext4", "")
			s.look(script)
			err := s.change(func(ctx context.Context, r *ostree.Sysroot) error {
				if err := r.Checkout(ctx, "os/1", "ostree/tree"); err != nil {
					return err
				}
				c, err := r.Commit(ctx, ostree.Commit{Tree: "ostree/tree", Branch: "os/1", Bootable: true})
				if err != nil {
					return err
				}
				return r.Deploy(ctx, ostree.Deploy{OS: "os", Commit: c, Origin: "[origin]\nrefspec=os/1\n"})
			})
			if err == nil && name != "etc" { // which leads to the empty one of the room
				t.Error("it went well")
			}
			if names, err := os.ReadDir(outside); err != nil || len(names) > 0 {
				t.Errorf("it wrote %v on the machine: %v", names, err)
			}
			if got := s.look(`find ostree -name shadow -o -name machine-id`); got != "" {
				t.Errorf("files of the machine are in the image: %s", got)
			}
		})
	}
}
