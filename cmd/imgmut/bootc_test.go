package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
)

// inSysroot runs a script in the volume of a disk that has deployments, with /boot in it,
// and gives what it prints. $new and $old are its deployments.
func inSysroot(t *testing.T, image, script string) string {
	t.Helper()
	return fixtures.Program(t, "", "unshare", "--mount", "sh", "-euc", `
at() { set -- $(partx --raw --bytes --noheadings --output START,SIZE --nr "$1" "$image"); echo "loop,offset=$(($1 * 512)),sizelimit=$2"; }
image=$1
cd "$2"
mount -o "ro,noload,$(at 4)" "$image" .
cd "$2"
mount -o "ro,noload,$(at 3)" "$image" boot
link() { cat boot/loader/entries/ostree-$1.conf boot/loader/entries/ostree-$1-*.conf 2>/dev/null |
	sed -n 's,^options .*ostree=/\([^ ]*\).*,\1,p'; }
n=$(ls boot/loader/entries | wc -l)
new=$(realpath --relative-to=. "$(link "$n")")
old=; [ "$n" = 1 ] || old=$(realpath --relative-to=. "$(link $((n - 1)))")
eval "$3"`, "sh", image, t.TempDir(), script)
}

// used is how much of the filesystem with the store is used, in bytes.
func used(t *testing.T, dir string) int64 {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Statfs_t
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

// TestBootc: a disk with deployments becomes a container image, and then the next one,
// which has a package more. What is new is all that it costs.
func TestBootc(t *testing.T) {
	l := newLab(t)
	layout := fixtures.Containers(t, "bootc-old")
	for n, disk := range []string{"bootc-old", "bootc-new"} {
		t.Run(disk, func(t *testing.T) {
			l := &lab{t: t, store: l.store}
			one, two := disk+"-one", disk+"-two"
			l.run(0, "apply", l.recipe(fmt.Sprintf("version: 1\nname: %s\nbase: %s\n"+
				"bootc: {image: \"oci:%s:v1\", target: registry.example/os:latest}\n"+
				"steps: [{run: {script: \"echo local >/etc/local; cat /usr/lib/image-version\"}}]\n", one, fixtures.Image(t, disk), layout)))
			file := func(name string) string { return filepath.Join(l.store, "images", name+".raw") }
			want := inSysroot(t, file(one), `cat "$new/usr/lib/image-version" "$new/etc/local" "$new/etc/of-the-image"; grep -c . "$new/etc/fstab"
				test ! -e "$old/usr/lib/image-version"; grep -o 'console=[^ ]*' boot/loader/entries/*`)
			if !strings.HasPrefix(want, "v1\nlocal\nof the image\n3\n") || strings.Count(want, "console=") != 2 {
				t.Errorf("in the first: %s", want)
			}
			inside := func(name string) (n int64) {
				fmt.Sscan(inSysroot(t, file(name), `df --block-size=1 --output=used . | tail -n 1`), &n)
				return n
			}
			before, size := used(t, l.store), inside(one)
			second := l.recipe(fmt.Sprintf("version: 1\nname: %s\nbase: %s\nbootc: {image: \"oci:%s:v2\", target: registry.example/os:latest}\n"+
				"verify: [{package: {name: hello}}, {file: {path: /usr/bin/hello}}]\n", two, one, layout))
			_, said := l.run(0, "apply", second)
			if strings.Contains(said, "import layer 3 of 3") != (n == 0) || strings.Contains(said, "import layer 2 of 3") {
				t.Errorf("not just the layer that is new is imported, and once:\n%s", said)
			}
			const room, journal = 437_000 + 2<<20, 64 << 20
			if grown := inside(two) - size; grown > room {
				t.Errorf("the filesystem has grown by %d bytes, more than %d", grown, room)
			} else {
				t.Logf("the filesystem has grown by %d bytes", grown)
			}
			// The image, its layers and the base that the first image became are clones of each other.
			if grown := used(t, l.store) - before; grown > room+journal {
				t.Errorf("the store has grown by %d bytes, more than %d", grown, room+journal)
			} else {
				t.Logf("the store has grown by %d bytes", grown)
			}
			got := inSysroot(t, file(two), `
				cat "$new/usr/lib/image-version" "$old/usr/lib/image-version" "$new/etc/local"
				test -x "$new/usr/bin/hello"
				test ! -e "$old/usr/bin/hello"
				grep -h image-reference "$new.origin" "$old.origin"
				ostree fsck --quiet --repo=ostree/repo >/dev/null
				ostree refs --repo=ostree/repo | grep -c ostree/container/blob
				ls ostree
				ostree admin status --sysroot=. 2>&1 | grep -c '^ *[*]* *debian'`)
			const ref = "container-image-reference=ostree-unverified-registry:registry.example/os:latest\n"
			if want := "v2\nv1\nlocal\n" + ref + ref + "3\nboot.0\nboot.0.1\ndeploy\nrepo\n" +
				"2\n"; strings.ReplaceAll(strings.ReplaceAll(got, "boot.1.1", "boot.0.1"), "boot.1\n", "boot.0\n") != want {
				t.Errorf("in the second:\n%s\nwant\n%s", got, want)
			}
			if n == 0 {
				tree := filepath.Join(t.TempDir(), "tree")
				inSysroot(t, file(two), `cp -a "$new" `+tree)
				fixtures.SameContainer(t, tree, layout, "v2")
			}
			// Again it is all there.
			if _, said := l.run(0, "apply", second); strings.Contains(said, "import") || strings.Contains(said, "deploy") {
				t.Errorf("applied again:\n%s", said)
			}
			l.run(0, "rm", two)
			l.run(0, "rm", one)
			l.wantClean()
		})
	}
	if out, _ := l.run(0, "gc"); strings.Count(out, "container image sha256:") != 2 {
		t.Errorf("gc: %s", out)
	}
	if _, err := os.Stat(filepath.Join(l.store, "containers")); !os.IsNotExist(err) {
		t.Errorf("containers are still there: %v", err)
	}
}

// TestBootcRegistry: a tag of a registry is asked for each time, unless the recipe says that
// it need not be; a digest never is, once it is there.
func TestBootcRegistry(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	host := fixtures.Registry(t, "")
	small := func(args ...string) {
		t.Helper()
		fixtures.Program(t, "", "sh", append([]string{filepath.Join(fixtures.Dir(), "small.sh")}, args...)...)
	}
	disk := filepath.Join(dir, "disk.raw")
	small("disk", disk)
	push := func(version string) (digest string) {
		t.Helper()
		layout := filepath.Join(dir, version)
		small("container", layout, "t", "true", "mkdir -p usr/lib; echo "+version+" >usr/lib/version")
		fixtures.Program(t, "", "skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false",
			"oci:"+layout+":t", "docker://"+host+"/os:latest")
		return strings.TrimSpace(fixtures.Program(t, "", "skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}",
			"docker://"+host+"/os:latest"))
	}
	recipe := func(name, image, more string) string {
		return l.recipe(fmt.Sprintf("version: 1\nname: %s\nbase: %s\nbootc: {image: %q%s}\n", name, disk, image, more))
	}
	is := func(name, want string) {
		t.Helper()
		got := fixtures.Program(t, "", "sh", filepath.Join(fixtures.Dir(), "deployments.sh"), filepath.Join(l.store, "images", name+".raw"))
		if want = want + " container-image-reference=ostree-unverified-registry:" + host; !strings.HasPrefix(got, want) {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	tag := "docker://" + host + "/os"
	first := push("two")
	moving, lazy := recipe("moving", tag, ""), recipe("lazy", tag+":latest", ", max-age: 1h")
	pinned := recipe("pinned", tag+"@"+first, "")
	for _, r := range []string{moving, lazy, pinned} {
		l.run(0, "apply", r)
	}
	for _, name := range []string{"moving", "lazy", "pinned"} {
		is(name, "two")
	}
	push("three")
	for _, r := range []string{moving, lazy, pinned} {
		_, said := l.run(0, "apply", r)
		if want := r == moving; strings.Contains(said, "import layer 2 of 2") != want || strings.Contains(said, "import layer 1") {
			t.Errorf("%s:\n%s", r, said)
		}
	}
	is("moving", "three")
	is("lazy", "two")
	is("pinned", "two")
	l.run(0, "apply", "--refresh", "bootc", lazy)
	is("lazy", "three")
	// A digest is what counts, whatever has the tag now.
	l.run(0, "apply", recipe("other", tag+":latest", ", digest: \""+first+"\""))
	is("other", "two")
	// What need not be asked is there without the registry; what must be is not.
	gone := strings.ReplaceAll(host, "127.0.0.1", "127.0.0.2")
	if _, said := l.run(4, "apply", recipe("gone", "docker://"+gone+"/os", "")); !strings.Contains(said, gone) {
		t.Errorf("without a registry: %s", said)
	}
	l.wantClean()
}
