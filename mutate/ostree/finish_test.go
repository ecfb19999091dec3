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
	"github.com/imgmut/imgmut/mutate/fault"
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

// changes are what a step can do to a tree: what there was, what it does, and what the new
// deployment then says to a question.
var changes = []struct{ name, had, does, asked, want string }{
	{"append", "echo one >usr/bin/appended", "echo more >>usr/bin/appended", "cat usr/bin/appended", "one more"},
	{"remove", "echo x >usr/bin/gone", "rm usr/bin/gone", "ls usr/bin | grep -c gone || true", "0"},
	{"mode and owner", "echo x >usr/bin/moded", "chown 1:2 usr/bin/moded; chmod 4755 usr/bin/moded",
		"stat -c '%a %u:%g' usr/bin/moded", "4755 1:2"},
	{"empty a directory", "mkdir -p usr/lib/a/deep; echo x >usr/lib/a/deep/x", "rm -r usr/lib/a; mkdir -m 2750 usr/lib/a; echo n >usr/lib/a/n",
		"ls usr/lib/a; stat -c %a usr/lib/a", "n 2750"},
	{"add to a directory", "mkdir usr/lib/both; echo y >usr/lib/both/y", "echo n >usr/lib/both/n", "cat usr/lib/both/*", "n y"},
	{"directory for a file", "echo f >usr/lib/f", "rm usr/lib/f; mkdir usr/lib/f; echo i >usr/lib/f/i", "cat usr/lib/f/i", "i"},
	{"file for a directory", "mkdir usr/lib/d; echo z >usr/lib/d/z", "rm -r usr/lib/d; echo file >usr/lib/d", "cat usr/lib/d", "file"},
	{"link for a directory", "mkdir usr/lib/e; echo z >usr/lib/e/z", "rm -r usr/lib/e; ln -s both usr/lib/e", "readlink usr/lib/e", "both"},
	{"one of two names", "echo same >usr/bin/l1; ln usr/bin/l1 usr/bin/l2", "echo other >>usr/bin/l1",
		"cat usr/bin/l1 usr/bin/l2", "same other same"},
	{"link", "ln -s a usr/bin/link", "ln -sfn b usr/bin/link", "readlink usr/bin/link", "b"},
	{"new names of one file", "true", "echo h >usr/bin/h1; ln usr/bin/h1 usr/bin/h2", "cat usr/bin/h1 usr/bin/h2", "h h"},
	{"capability", "echo x >usr/bin/capped", "setcap cap_net_raw+ep usr/bin/capped", "getcap usr/bin/capped", "usr/bin/capped cap_net_raw=ep"},
	{"attribute", "echo x >usr/bin/attr", "setfattr -n user.a -v b usr/bin/attr", "getfattr --only-values -n user.a usr/bin/attr", "b"},
	{"attribute of a directory", "mkdir usr/lib/at", "setfattr -n user.a -v b usr/lib/at", "getfattr --only-values -n user.a usr/lib/at", "b"},
	{"in the root", "true", "mkdir opt; echo o >opt/o", "cat opt/o", "o"},
	{"nothing of overlayfs", "true", "true", "getfattr -Rhd -m trusted . 2>/dev/null | wc -l", "0"},
	{"a user", "true", `printf 'step:x:1001:1001::/:/bin/sh\n' >>etc/passwd`, "grep -cE '^(local|step):' etc/passwd", "2"},
	{"remove in etc", "echo x >usr/etc/removed", "rm etc/removed", "ls etc | grep -c removed || true", "0"},
	{"new default", "true", "echo new >usr/etc/arrives", "cat etc/arrives", "new"},
	{"what the owner added", "true", "true", "cat etc/mine", "mine"},
	{"etc itself", "true", "chmod 750 etc", "stat -c %a etc", "750"},
	{"the root itself", "true", "chmod 711 .", "stat -c %a .", "711"},
	{"special files of etc", "true", "mkfifo etc/pipe; mkdir -m 700 etc/dir; echo s >etc/dir/s",
		"stat -c '%F %a' etc/pipe etc/dir; cat etc/dir/s",
		"fifo 644 directory 700 s"},
}

// TestFinish: each change is in the new deployment, the old one is as it was, and the
// repository is whole.
func TestFinish(t *testing.T) {
	var had, does strings.Builder
	for _, c := range changes {
		had.WriteString(c.had + "\n")
		does.WriteString(c.does + "\n")
	}
	for _, fs := range []string{"ext4", "xfs"} {
		s := makeSystem(t, fs, had.String())
		s.look(`echo mine >$d/etc/mine; printf 'local:x:1000:1000::/:/bin/sh\n' >>$d/etc/passwd`)
		old := strings.TrimSpace(s.look("echo $d"))
		was := s.state(old)
		if _, err := s.finish(0, does.String()); err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			t.Run(fs+" "+c.name, func(t *testing.T) {
				s.t = t
				got := s.look(`cd $(ls -d ostree/deploy/os/deploy/*.0 | grep -v "` + old + `"); ` + c.asked)
				if got := strings.Join(strings.Fields(got), " "); got != c.want {
					t.Errorf("%s: %q, want %q", c.asked, got, c.want)
				}
			})
		}
		s.t = t
		if now := s.state(old); now != was {
			t.Errorf("the old deployment changed:\n%s\n--\n%s", was, now)
		}
		if got := s.look("ls boot/loader/entries | wc -l; ls ostree | grep -c imgmut || true"); got != "2\n0\n" {
			t.Errorf("entries, and what is left of the work: %q", got)
		}
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

// TestFinishNothing: where steps have changed nothing, nothing is made. What they made and
// removed again leaves the directories that it was in.
func TestFinishNothing(t *testing.T) {
	s := makeSystem(t, "ext4", "mkdir -p usr/lib/a/b; setfattr -n user.a -v b usr/lib/a")
	was := s.state("ostree")
	for _, script := range []string{"true", "touch etc/x usr/lib/a/b/x; rm etc/x usr/lib/a/b/x"} {
		if _, err := s.finish(0, script); err != nil {
			t.Fatal(err)
		}
		if now := s.state("ostree"); now != was {
			t.Errorf("%s: it changed:\n%s\n--\n%s", script, was, now)
		}
	}
}

// TestFinishDirectory: what is done to a directory alone is a change.
func TestFinishDirectory(t *testing.T) {
	s := makeSystem(t, "ext4", "mkdir -p usr/lib/a/b; echo x >usr/lib/a/b/x; setfattr -n user.a -v b usr/lib/a")
	for n, script := range []string{
		"chmod 700 usr/lib/a/b", "chown 1 usr/lib/a/b", "setfattr -x user.a usr/lib/a",
		"rm -r usr/lib/a/b; mkdir -m 700 usr/lib/a/b; chown 1 usr/lib/a/b",
		"mkdir usr/lib/a/b/c", "rmdir usr/lib/a/b/c", "chmod 711 etc",
	} {
		if _, err := s.finish(0, script); err != nil {
			t.Fatal(err)
		}
		// A change of /etc is of the same commit.
		if got := strings.TrimSpace(s.look("ls ostree/repo/objects/*/*.commit | wc -l")); n < 6 && got != strconv.Itoa(min(n+2, 3)) {
			t.Errorf("%s: %s commits", script, got)
		}
		if got := strings.TrimSpace(s.look("ls boot/loader/entries | wc -l")); got != "2" {
			t.Errorf("%s: %s entries", script, got)
		}
	}
	if got := strings.TrimSpace(s.look("stat -c %a ostree/deploy/os/deploy/*.1/etc")); got != "711" {
		t.Errorf("/etc has the mode %s", got)
	}
}

// TestFinishEtcAlone: a change of /etc alone is a deployment of the same commit.
func TestFinishEtcAlone(t *testing.T) {
	s := makeSystem(t, "ext4", "")
	if _, err := s.finish(0, "echo b >etc/default"); err != nil {
		t.Fatal(err)
	}
	got := s.look("cd ostree/deploy/os/deploy; cat *.0/etc/default *.1/etc/default; ls ../../../repo/objects/*/*.commit | wc -l")
	if got != "a\nb\n1\n" {
		t.Errorf("got %q", got)
	}
}

// TestFinishBootc keeps what bootc reads of the commit that it runs on, and says what
// that means.
func TestFinishBootc(t *testing.T) {
	s := makeSystem(t, "ext4", "")
	s.look(`r=ostree/repo
c=$(ostree --repo=$r commit --parent=$(ostree --repo=$r rev-parse os/1) --branch=os/1 --bootable --tree=ref=os/1 \
	--add-metadata-string=ostree.manifest-digest=sha256:aa --add-metadata-string=ostree.manifest={} \
	--add-metadata-string=ostree.container.image-config={})
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
cd usr/etc/selinux/targeted
printf "/.* system_u:object_r:default_t:s0\n/usr/bin(/.*)? system_u:object_r:bin_t:s0\n" >contexts/files/file_contexts
: >policy/policy.33
cd - >/dev/null
echo kept >usr/bin/kept; echo etc >usr/etc/labelled; echo etc >usr/etc/replaced
for f in usr/bin/kept usr/etc/labelled usr/etc/replaced; do setfattr -n security.selinux -v system_u:object_r:own_t:s0 $f; done`)
	if _, err := s.finish(1, "echo new >usr/bin/new; echo more >etc/replaced.new; mv etc/replaced.new etc/replaced"); err != nil {
		t.Fatal(err)
	}
	got := s.look(`cd $d
for f in usr/bin/kept usr/bin/new etc/replaced; do
	getfattr --only-values -n security.selinux $f | tr -d "\\0"
	echo " $f"
done
cat etc/replaced`)
	const label = "system_u:object_r:"
	want := label + "own_t:s0 usr/bin/kept\n" + label + "bin_t:s0 usr/bin/new\n" + label + "default_t:s0 etc/replaced\nmore\n"
	if got != want {
		t.Errorf("labels\n%swant\n%s", got, want)
	}
}

// TestFinishRefuses what cannot be a commit, and what is not the system that was meant.
func TestFinishRefuses(t *testing.T) {
	for name, tc := range map[string]struct{ before, steps, want string }{
		"a pipe in /usr": {"", "mkfifo usr/bin/pipe", "/usr/bin/pipe: a device, socket or pipe"},
		"a menu of GRUB": {`mkdir boot/grub2
printf 'menuentry a {\nlinux /x %s\n}\n' "$(sed -n 's/^options //p' boot/loader/entries/*)" >boot/grub2/grub.cfg
rm boot/loader/entries/*`, "", "grub.cfg"},
		"a repository of archives": {"ostree config --repo=ostree/repo set core.mode archive", "", "want bare"},
		"a full volume": {
			`fallocate -l $(($(stat -f -c "%f*%S" .) - 11000000)) full`, "head -c 2M /dev/urandom >usr/bin/large", "filesystem is full",
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

// TestFinishEtc: an /etc that a step has made anew has nothing of the old one, and what is no
// directory is refused.
func TestFinishEtc(t *testing.T) {
	s := makeSystem(t, "ext4", "echo x >usr/etc/gone")
	old := strings.TrimSpace(s.look("echo $d"))
	if _, err := s.finish(0, "cp -a etc new; rm new/gone; echo x >new/only; rm -rf etc; mv new etc"); err != nil {
		t.Fatal(err)
	}
	got := s.look(`cd $(ls -d ostree/deploy/os/deploy/*.[01] | grep -v "` + old + `"); ls etc | grep -xE 'gone|only'`)
	if got != "only\n" {
		t.Errorf("of gone and only there are %q", got)
	}
	s = makeSystem(t, "ext4", "")
	if _, err := s.finish(0, `cd "$1.mnt"; rm -r ostree/imgmut/u`); fault.Of(err) != fault.Step {
		t.Errorf("without an upper directory: %v", err)
	}
	for _, steps := range []string{"mv etc usr/etc2; ln -s usr/etc2 etc", "rm -rf etc"} {
		s := makeSystem(t, "ext4", "")
		if _, err := s.finish(0, steps); fault.Of(err) != fault.Step {
			t.Errorf("%s: %v", steps, err)
		}
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
