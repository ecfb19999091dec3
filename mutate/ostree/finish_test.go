package ostree_test

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// finish has a script run in an overlay over the default deployment, as steps do, by the
// mount program, and makes a deployment of what it has changed.
func (s *system) finish(keep int, script string) (notes string, err error) {
	s.t.Helper()
	dir := s.look("readlink -f $(sed -n 's/^options.*ostree=.\\([^ ]*\\).*/\\1/p' $(ls -d boot/loader/entries/* | tail -n 1))")
	_, dir, _ = strings.Cut(strings.TrimSpace(dir), ".mnt/")
	return s.finishAt(dir, keep, script)
}

// finishAt is finish over the deployment with that directory.
func (s *system) finishAt(dir string, keep int, script string) (notes string, err error) {
	s.t.Helper()
	err = s.change(func(_ context.Context, r *ostree.Sysroot) error { return ostree.MakeWork(r.Root, dir, true) })
	if err != nil {
		return "", err
	}
	fixtures.Program(s.t, "", "unshare", "--mount", "sh", "-euc", `
mount -o loop "$1" "$1.mnt"
cd "$1.mnt"
mount -t overlay -o "lowerdir=$2,upperdir=ostree/imgmut/u,workdir=ostree/imgmut/w,redirect_dir=off,index=off,metacopy=off,xino=off" o /mnt
cd /mnt
eval "$3"`, "sh", s.file, dir, script)
	err = s.change(func(ctx context.Context, r *ostree.Sysroot) error {
		err := r.Finish(ctx, ostree.Change{Of: dir, Keep: keep, Time: time.Unix(1700000000, 0), Note: func(n string) { notes += n + "\n" }})
		if err == nil {
			err = r.Fsck(ctx)
		}
		return err
	})
	return notes, err
}

// state is all that a directory of the volume has, in a form that can be compared.
const state = `(cd $1; find . -printf '%P %y %m %U:%G %l\n' | sort; find . -type f -print0 | sort -z | xargs -0r sha256sum;
	getfattr -Rhd -m - --absolute-names . 2>/dev/null)`

func (s *system) state(dir string) string { return s.look("set -- " + dir + "\n" + state) }

// TestFinish: each thing that a step can do to a tree is in the new deployment, the old
// one is as it was, and the repository is whole.
func TestFinish(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			s := makeSystem(t, fs, `
echo one >usr/bin/appended; echo two >usr/bin/gone; echo three >usr/bin/moded; mkdir -p usr/lib/emptied/deep usr/lib/both
echo x >usr/lib/emptied/deep/x; echo y >usr/lib/both/y; echo f >usr/lib/becomes-dir; mkdir usr/lib/becomes-file; echo z >usr/lib/becomes-file/z
echo same >usr/bin/linked; ln usr/bin/linked usr/bin/linked2; ln -s a usr/bin/link; echo capped >usr/bin/capped
echo d1 >usr/etc/kept; echo d2 >usr/etc/removed`)
			s.look(`echo mine >$d/etc/mine; printf 'local:x:1000:1000::/:/bin/sh\n' >>$d/etc/passwd; mkdir -p ostree/deploy/os/var/lib; echo v >ostree/deploy/os/var/lib/v`)
			old := s.look("echo $d")
			was := s.state("$d")
			_, err := s.finish(0, `
echo more >>usr/bin/appended; rm usr/bin/gone; chown 1:2 usr/bin/moded; chmod 4755 usr/bin/moded
rm -r usr/lib/emptied; mkdir -m 2750 usr/lib/emptied; echo n >usr/lib/emptied/n; echo n >usr/lib/both/n
rm usr/lib/becomes-dir; mkdir usr/lib/becomes-dir; echo i >usr/lib/becomes-dir/i
rm -r usr/lib/becomes-file; echo file >usr/lib/becomes-file
echo other >>usr/bin/linked; ln -sfn b usr/bin/link; echo h >usr/bin/h1; ln usr/bin/h1 usr/bin/h2
setcap cap_net_raw+ep usr/bin/capped; setfattr -n user.a -v b usr/bin/capped
echo new-default >usr/etc/arrives
printf 'step:x:1001:1001::/:/bin/sh\n' >>etc/passwd; rm etc/removed; mkfifo etc/pipe; mkdir -m 700 etc/dir; echo s >etc/dir/s
mkdir opt; echo o >opt/o`)
			if err != nil {
				t.Fatal(err)
			}
			if now := s.state(strings.TrimSpace(old)); now != was {
				t.Errorf("the old deployment changed:\n%s\n--\n%s", was, now)
			}
			got := s.look(`n=$(ls -d ostree/deploy/os/deploy/*.0 | grep -v "` + strings.TrimSpace(old) + `"); cd $n
head usr/bin/appended usr/bin/linked usr/bin/linked2 usr/lib/both/y usr/lib/both/n usr/lib/becomes-dir/i usr/lib/becomes-file
ls -d usr/bin/gone usr/lib/emptied/deep etc/removed 2>&1 | wc -l
stat -c '%n %a %u:%g' usr/bin/moded usr/lib/emptied etc/dir
readlink usr/bin/link; cat opt/o usr/lib/emptied/n etc/arrives etc/mine etc/kept etc/passwd etc/dir/s; stat -c %F etc/pipe
getcap usr/bin/capped; getfattr -n user.a --only-values usr/bin/capped; echo
getfattr -Rhd -m trusted.overlay . 2>/dev/null | head -n 1; ls -d /proc/self/cwd/../../../../imgmut 2>&1 | grep -c 'No such'
grep -c . ../$(basename $n).origin; cd - >/dev/null; ls boot/loader/entries | wc -l; ls ostree; ostree admin status --sysroot=. | head -n 1 | grep -c "$(basename $n)"`)
			for _, want := range []string{
				"one\nmore\n", "usr/bin/linked <==\nsame\nother\n", "usr/bin/linked2 <==\nsame\n", "both/y <==\ny\n", "both/n <==\nn\n",
				"becomes-dir/i <==\ni\n", "becomes-file <==\nfile\n", "\n3\n", "moded 4755 1:2", "emptied 2750", "dir 700", "\nb\no\nn\nnew-default\nmine\nd1\n",
				"local:x:1000", "step:x:1001", "fifo", "cap_net_raw=ep", "\nb\n1\n", "boot.", "deploy", "repo",
			} {
				if !strings.Contains(got, want) {
					t.Errorf("the new deployment lacks %q:\n%s", want, got)
				}
			}
			if strings.Contains(got, "imgmut") || strings.Contains(got, "trusted.overlay") {
				t.Errorf("something of the work is left:\n%s", got)
			}
		})
	}
}

// TestFinishKeeps as many deployments as it is told to, and none that is pinned is lost.
func TestFinishKeeps(t *testing.T) {
	for _, tc := range []struct {
		name   string
		keep   int
		before string
		want   string // deployments
	}{
		{"two", 0, "", "2"},
		{"one", 1, "", "1"},
		{"one and a pinned one", 1, "ostree admin pin --sysroot=. 0 || printf '\n[libostree-transient]\npinned=true\n' >>$d.origin", "2"},
		{"of one state root", 1, "ostree admin os-init other --sysroot=.; ostree admin deploy --sysroot=. --os=other --not-as-default os/1", "2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := makeSystem(t, "ext4", "")
			s.look(tc.before)
			for range 2 {
				if _, err := s.finish(tc.keep, "date +%N >usr/bin/now"); err != nil {
					t.Fatal(err)
				}
			}
			if got := strings.TrimSpace(s.look("ls -d ostree/deploy/*/deploy/*.[0-9] | wc -l")); got != tc.want {
				t.Errorf("there are %s deployments, want %s", got, tc.want)
			}
		})
	}
}

// TestFinishNothing: where steps have changed nothing, nothing is made.
func TestFinishNothing(t *testing.T) {
	s := makeSystem(t, "ext4", "")
	was := s.state("ostree")
	if _, err := s.finish(0, "true"); err != nil {
		t.Fatal(err)
	}
	if now := s.state("ostree"); now != was {
		t.Errorf("it changed:\n%s\n--\n%s", was, now)
	}
}

// TestFinishEtcAlone: a change of /etc alone is a deployment of the same commit.
func TestFinishEtcAlone(t *testing.T) {
	s := makeSystem(t, "ext4", "")
	if _, err := s.finish(0, "echo b >etc/default"); err != nil {
		t.Fatal(err)
	}
	got := s.look("cat ostree/deploy/os/deploy/*.0/etc/default ostree/deploy/os/deploy/*.1/etc/default; ls ostree/repo/objects/*/*.commit | wc -l")
	if got != "a\nb\n1\n" {
		t.Errorf("got %q", got)
	}
}

// TestFinishBootc keeps what bootc reads of the commit that it runs on, and says what
// that means.
func TestFinishBootc(t *testing.T) {
	s := makeSystem(t, "ext4", "")
	s.look(`c=$(ostree --repo=ostree/repo commit --parent=$(ostree --repo=ostree/repo rev-parse os/1) --branch=os/1 --bootable --tree=ref=os/1 \
		--add-metadata-string=ostree.manifest-digest=sha256:aa --add-metadata-string=ostree.manifest={} --add-metadata-string=ostree.container.image-config={})
		printf '[origin]\ncontainer-image-reference=ostree-unverified-registry:example.com/os:1\n' >o
		ostree admin deploy --sysroot=. --os=os --origin-file=o $c`)
	notes, err := s.finish(1, "echo n >usr/bin/n")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(notes, "example.com/os:1") || !strings.Contains(notes, "bootc upgrade") {
		t.Errorf("notes: %q", notes)
	}
	got := s.look(`c=$(basename $d .0); ostree --repo=ostree/repo show --print-metadata-key=ostree.manifest-digest $c; cat $d.origin`)
	if !strings.Contains(got, "sha256:aa") || !strings.Contains(got, "example.com/os:1") {
		t.Errorf("the new deployment has %s", got)
	}
}

// TestFinishLabels: where the image has a policy of SELinux, what is unchanged keeps its
// label, and what is new gets one by the policy. What replaces a file of
// /etc has the label that ostree has given that, which is by the policy.
func TestFinishLabels(t *testing.T) {
	s := makeSystem(t, "ext4", `
mkdir -p usr/etc/selinux/targeted/contexts/files usr/etc/selinux/targeted/policy
printf "SELINUX=enforcing\nSELINUXTYPE=targeted\n" >usr/etc/selinux/config
printf "/.* system_u:object_r:default_t:s0\n/usr/bin(/.*)? system_u:object_r:bin_t:s0\n" >usr/etc/selinux/targeted/contexts/files/file_contexts
: >usr/etc/selinux/targeted/policy/policy.33
echo kept >usr/bin/kept; echo etc >usr/etc/labelled; echo etc >usr/etc/replaced
for f in usr/bin/kept usr/etc/labelled usr/etc/replaced; do setfattr -n security.selinux -v system_u:object_r:own_t:s0 $f; done`)
	if _, err := s.finish(1, "echo new >usr/bin/new; echo more >etc/replaced.new; mv etc/replaced.new etc/replaced"); err != nil {
		t.Fatal(err)
	}
	got := s.look(`for f in usr/bin/kept usr/bin/new etc/replaced; do getfattr --only-values -n security.selinux $d/$f | tr -d "\\0"; echo " $f"; done; cat $d/etc/replaced`)
	want := "system_u:object_r:own_t:s0 usr/bin/kept\nsystem_u:object_r:bin_t:s0 usr/bin/new\nsystem_u:object_r:default_t:s0 etc/replaced\nmore\n"
	if got != want {
		t.Errorf("labels\n%swant\n%s", got, want)
	}
}

// TestFinishRefuses what cannot be a commit, and what is not the system that was meant.
func TestFinishRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ before, steps, want string }{
		"a pipe in /usr":           {"", "mkfifo usr/bin/pipe", "/usr/bin/pipe: a device, socket or pipe"},
		"a menu of GRUB":           {`mkdir boot/grub2; sed 's/^/# /' boot/loader/entries/* >boot/grub2/x; printf 'menuentry a {\nlinux /x %s\n}\n' "$(sed -n 's/^options //p' boot/loader/entries/*)" >boot/grub2/grub.cfg; rm boot/loader/entries/*`, "", "grub.cfg"},
		"a repository of archives": {"ostree config --repo=ostree/repo set core.mode archive", "", "want bare"},
		"a full volume": {
			`fallocate -l $(($(df --output=avail -B1 . | tail -n 1) - 4000000)) full`, "head -c 2M /dev/urandom >usr/bin/large", "filesystem is full",
		},
		"a deployment of composefs": {"chattr -i $d; : >$d/.ostree.cfs", "", "composefs"},
	} {
		t.Run(name, func(t *testing.T) {
			s := makeSystem(t, "ext4", "")
			dir := strings.TrimSpace(s.look("echo $d"))
			s.look(tc.before)
			_, err := s.finishAt(dir, 0, tc.steps+"\necho n >usr/bin/n")
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// TestApplyRefuses an upper directory that overlayfs was told not to make.
func TestApplyRefuses(t *testing.T) {
	for attr, want := range map[string]string{"trusted.overlay.redirect": "renamed", "trusted.overlay.metacopy": "without its bytes"} {
		s := makeSystem(t, "ext4", "")
		name := map[string]string{"trusted.overlay.redirect": "usr", "trusted.overlay.metacopy": "file"}[attr]
		s.look("mkdir -p u/usr t; echo x >u/file; setfattr -n " + attr + " -v x u/" + name)
		err := s.change(func(ctx context.Context, r *ostree.Sysroot) error { return r.Apply(ctx, "u", "t", nil, false) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", attr, err, want)
		}
	}
}

// TestApplyPlainCapabilities: a capability that a user namespace has written is one that
// the machine's root would have, and one of another namespace is refused.
func TestApplyPlainCapabilities(t *testing.T) {
	for _, tc := range []struct {
		root byte
		want int // bytes
	}{{0, 20}, {9, 0}} {
		s := makeSystem(t, "ext4", "")
		s.look("mkdir -p u t; echo x >u/file")
		value := append([]byte{0x01, 0, 0, 3, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, tc.root, 0, 0, 0)
		size := 0
		err := s.change(func(ctx context.Context, r *ostree.Sysroot) error {
			file := "/proc/self/fd/" + fd(r.Root) + "/"
			if err := unix.Setxattr(file+"u/file", "security.capability", value, 0); err != nil {
				t.Fatal(err)
			}
			err := r.Apply(ctx, "u", "t", nil, false)
			size, _ = unix.Getxattr(file+"t/file", "security.capability", nil)
			return err
		})
		if (err == nil) != (tc.want > 0) || tc.want > 0 && size != tc.want {
			t.Errorf("a capability of namespace %d: %d bytes, %v", tc.root, size, err)
		}
	}
}

func fd(f *os.File) string { return strconv.Itoa(int(f.Fd())) }
