package ostree

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/fault"
)

const (
	commitA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	commitB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// volume is one with two deployments of one state root and one of another.
func volume() fstest.MapFS {
	t := fstest.MapFS{}
	for link, d := range map[string]Deployment{
		"ostree/boot.1/os/c0ffee/0":    {OS: "os", Commit: commitB},
		"ostree/boot.1/os/c0ffee/1":    {OS: "os", Commit: commitA, Serial: 2},
		"ostree/boot.1/other/c0ffee/0": {OS: "other", Commit: commitA},
	} {
		t[link] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte("../../../" + strings.TrimPrefix(d.Dir(), "ostree/"))}
		t[d.Dir()+"/usr/lib/os-release"] = &fstest.MapFile{Data: []byte("PRETTY_NAME=\"The " + d.OS + "\"\n")}
		t[d.Dir()+"/etc/fstab"] = &fstest.MapFile{}
		t[d.Var()+"/lib"] = &fstest.MapFile{Mode: fs.ModeDir}
		t["ostree/repo/objects/"+d.Commit[:2]+"/"+d.Commit[2:]+".commit"] = &fstest.MapFile{}
		t[d.Dir()+".origin"] = &fstest.MapFile{Data: []byte("[origin]\nrefspec=" + d.OS + "/1\n")}
	}
	return t
}

func entry(n int, link string) boot.Entry {
	return boot.Entry{Loader: "bls", File: fmt.Sprintf("/boot/loader/entries/ostree-%d.conf", n), ID: fmt.Sprintf("ostree-%d", n),
		Options: "root=UUID=x rw ostree=/ostree/boot.1/" + link}
}

var entries = []boot.Entry{entry(3, "os/c0ffee/0"), entry(2, "other/c0ffee/0"), entry(1, "os/c0ffee/1")}

func TestFind(t *testing.T) {
	root := volume()
	root[Deployment{OS: "os", Commit: commitA, Serial: 2}.Dir()+".origin"] = &fstest.MapFile{
		Data: []byte("[origin]\ncontainer-image-reference=x:example.com/os:1\n[libostree-transient]\npinned=true\n")}
	root["ostree/deploy/os/deploy/"+commitA+".7/usr"] = &fstest.MapFile{Mode: fs.ModeDir}
	root[Deployment{OS: "other", Commit: commitA}.Dir()+"/.ostree.cfs"] = &fstest.MapFile{}
	got, err := Find(root, entries, "/ostree/boot.1/os/c0ffee/0")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, d := range got {
		lines = append(lines, fmt.Sprintf("%s %.2s.%d %q default=%v rollback=%v pinned=%v composefs=%v %s%s %q",
			d.OS, d.Commit, d.Serial, d.Entry, d.Default, d.Rollback, d.Pinned, d.Composefs, d.Refspec, d.Image, d.Name))
	}
	want := `os bb.0 "/boot/loader/entries/ostree-3.conf" default=true rollback=false pinned=false composefs=false os/1 "The os"
other aa.0 "/boot/loader/entries/ostree-2.conf" default=false rollback=false pinned=false composefs=true other/1 "The other"
os aa.2 "/boot/loader/entries/ostree-1.conf" default=false rollback=true pinned=true composefs=false x:example.com/os:1 "The os"
os aa.7 "" default=false rollback=false pinned=false composefs=false  ""`
	if s := strings.Join(lines, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
}

// TestFindDamaged: each way in which a deployment that an entry starts is not whole, the
// default or another.
func TestFindDamaged(t *testing.T) {
	dir := Deployment{OS: "os", Commit: commitB}.Dir()
	rollback := Deployment{OS: "os", Commit: commitA, Serial: 2}.Dir()
	remove := func(prefix string) func(fstest.MapFS) {
		return func(root fstest.MapFS) {
			for name := range root {
				if name == prefix || strings.HasPrefix(name, prefix+"/") {
					delete(root, name)
				}
			}
		}
	}
	link := func(target string) func(fstest.MapFS) {
		return func(root fstest.MapFS) {
			root["ostree/boot.1/os/c0ffee/0"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte(target)}
		}
	}
	add := func(name string) func(fstest.MapFS) {
		return func(root fstest.MapFS) { root[name] = &fstest.MapFile{} }
	}
	const starts = "/ostree/boot.1/os/c0ffee/0"
	for _, tc := range []struct {
		name, starts string
		damage       func(fstest.MapFS)
		want         string
	}{
		{"no entry", "", func(fstest.MapFS) {}, "no boot loader's entry says which one starts"},
		{"no link", "/ostree/deploy/os", func(fstest.MapFS) {}, "is no link to a deployment"},
		{"up and out", "/ostree/boot.1/../../x/0", func(fstest.MapFS) {}, "is no link to a deployment"},
		{"link gone", starts, remove("ostree/boot.1/os"), "cannot be read"},
		{"link to the machine", starts, link("/etc"), "leads to /etc"},
		{"link out", starts, link("../../../../../deploy/os/deploy/../../x"), "leads to "},
		{"link to another system", starts, link("../../../deploy/other/deploy/" + commitA + ".0"), "leads to another operating system"},
		{"serial of no number", starts, link("../../../deploy/os/deploy/" + commitB + ".99999999999999999999"), "leads to "},
		{"directory gone", starts, remove(dir), "there is no such directory"},
		{"no system", starts, remove(dir + "/usr/lib/os-release"), "it has no /usr/lib/os-release"},
		{"no etc", starts, remove(dir + "/etc"), "it has no /etc"},
		{"no var", starts, remove("ostree/deploy/os/var"), "there is no /ostree/deploy/os/var"},
		{"no commit", starts, remove("ostree/repo/objects/bb"), "its commit is not in the repository"},
		{"part of a commit", starts, add("ostree/repo/state/" + commitB + ".commitpartial"), "its commit is only partly in the repository"},
		{"rollback without etc", starts, remove(rollback + "/etc"), "it has no /etc"},
		{"too many", starts, func(root fstest.MapFS) {
			for n := range maxDeployments {
				add(fmt.Sprintf("ostree/deploy/os%d/deploy/%s.%d/x", n%3, commitA, n+10))(root)
			}
		}, "more than 64 deployments"},
		{"rollback gone", starts, remove("ostree/boot.1/os/c0ffee/1"), "cannot be read"},
	} {
		root := volume()
		tc.damage(root)
		_, err := Find(root, entries, tc.starts)
		if err == nil || !strings.Contains(err.Error(), tc.want) || fault.Of(err) != fault.Image || fault.Mend(err) == "" {
			t.Errorf("%s: %v, want an error of the image with %q and a mend", tc.name, err, tc.want)
		}
	}
}

func TestPrepared(t *testing.T) {
	d := Deployment{OS: "os", Commit: commitB}
	for _, tc := range []struct {
		name                string
		image, machine, own string // prepare-root.conf of both, and the repository's configuration
		want                Prepared
	}{
		{"nothing", "", "", "", Prepared{}},
		{"the image", "[sysroot]\nreadonly=true\n", "", "", Prepared{ReadOnly: true}},
		{"the image in other words", "# x\n[sysroot]\n readonly = yes\n", "", "", Prepared{ReadOnly: true}},
		{"the repository", "", "", "[core]\nmode=bare\n[sysroot]\nreadonly=true\n", Prepared{ReadOnly: true}},
		{"the image over the repository", "[sysroot]\nreadonly=false\n", "", "[sysroot]\nreadonly=true\n", Prepared{}},
		{"the machine over the image", "[sysroot]\nreadonly=true\n", "[sysroot]\nreadonly=no\n", "", Prepared{}},
		{"another group", "[x]\nreadonly=true\n", "", "", Prepared{}},
		{"etc", "[etc]\ntransient=true\n", "", "", Prepared{Transient: "/etc"}},
		{"root", "[root]\ntransient=true\n", "", "", Prepared{Transient: "/"}},
	} {
		root := fstest.MapFS{
			d.Dir() + "/usr/lib/ostree/prepare-root.conf": {Data: []byte(tc.image)},
			d.Dir() + "/etc/ostree/prepare-root.conf":     {Data: []byte(tc.machine)},
			"ostree/repo/config":                          {Data: []byte(tc.own)},
		}
		if got := d.Prepared(root); got != tc.want {
			t.Errorf("%s: %+v, want %+v", tc.name, got, tc.want)
		}
	}
}

// TestHarmlessConfig: of a repository's configuration ostree sees nothing that names a
// program, another repository or a key.
func TestHarmlessConfig(t *testing.T) {
	got, err := harmlessConfig(`[core]
repo_version=1
mode=bare
parent=/etc
[sysroot]
bootloader=grub2
bootprefix=true
[remote "x"]
url=file:///
gpgkeypath=/etc/shadow
`)
	want := "[core]\nrepo_version=1\nmode=bare\nfsync=false\n[sysroot]\nbootloader=none\nbootprefix=true\n"
	if err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	for _, text := range []string{"", "[core]\nmode=archive\n", "mode=bare\n"} {
		if _, err := harmlessConfig(text); fault.Of(err) != fault.Image {
			t.Errorf("%q: %v, want it refused", text, err)
		}
	}
}

func TestIsBootcComposefs(t *testing.T) {
	for want, root := range map[bool]fstest.MapFS{
		true:  {"composefs/objects/00/11": {}, "state/deploy/aa/etc/fstab": {}},
		false: {"composefs/objects/00/11": {}, "state/deploy/aa/etc/fstab": {}, "ostree/repo/config": {}},
	} {
		if got := IsBootcComposefs(root); got != want {
			t.Errorf("%v: %v", root, got)
		}
	}
	if IsBootcComposefs(volume()) || IsBootcComposefs(fstest.MapFS{"composefs/x": {}}) {
		t.Error("another volume is taken for one")
	}
}

// FuzzFind: files of the image never make it panic, and what is found lies in the volume.
func FuzzFind(f *testing.F) {
	f.Add("ostree=/ostree/boot.1/os/c0ffee/0", "../../../deploy/os/deploy/"+commitB+".0", "[origin]\nrefspec=a\n", "PRETTY_NAME=x\n")
	f.Add("ostree=x ostree=", "/etc", "[", "=")
	f.Fuzz(func(t *testing.T, options, target, origin, release string) {
		root := volume()
		d := Deployment{OS: "os", Commit: commitB}
		root["ostree/boot.1/os/c0ffee/0"] = &fstest.MapFile{Mode: fs.ModeSymlink, Data: []byte(target)}
		root[d.Dir()+".origin"] = &fstest.MapFile{Data: []byte(origin)}
		root[d.Dir()+"/usr/lib/os-release"] = &fstest.MapFile{Data: []byte(release)}
		root[d.Dir()+"/usr/lib/ostree/prepare-root.conf"] = &fstest.MapFile{Data: []byte(origin)}
		list, err := Find(root, []boot.Entry{{Options: options}}, Starts(options))
		for _, d := range list {
			if !fs.ValidPath(d.Dir()) || !strings.HasPrefix(d.Dir(), "ostree/deploy/") || err != nil {
				t.Errorf("found %s, %v", d.Dir(), err)
			}
			d.Prepared(root)
		}
		if _, err := harmlessConfig(origin); err == nil && !strings.Contains(origin, "bare") {
			t.Errorf("a configuration without its mode is taken: %q", origin)
		}
	})
}
