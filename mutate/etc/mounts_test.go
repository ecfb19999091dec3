package etc_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/etc"
)

// image makes a tree of files; a text that begins with "-> " is a link.
func image(files map[string]string) fstest.MapFS {
	tree := fstest.MapFS{}
	for name, text := range files {
		name = longName(name)
		f := &fstest.MapFile{Data: []byte(text), Mode: 0o644}
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			f = &fstest.MapFile{Data: []byte(target), Mode: 0o777 | fs.ModeSymlink}
		}
		tree[name] = f
	}
	return tree
}

// longName is the name of a file where e/ stands for /etc/systemd/system, l/ for that
// of /usr/local/lib, u/ for that of /usr/lib.
func longName(name string) string {
	for short, dir := range map[string]string{"e/": "etc", "l/": "usr/local/lib", "u/": "usr/lib"} {
		if rest, ok := strings.CutPrefix(name, short); ok {
			return dir + "/systemd/system/" + rest
		}
	}
	return name
}

// write is image in a directory, and gives its name.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		name = filepath.Join(root, longName(name))
		err := os.MkdirAll(filepath.Dir(name), 0o755)
		if target, ok := strings.CutPrefix(text, "-> "); ok && err == nil {
			err = os.Symlink(target, name)
		} else if err == nil {
			err = os.WriteFile(name, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// describe writes a mount as one line: Place What FS Options From, and what it is.
func describe(m etc.Mount) string {
	s := fmt.Sprintf("%s %s %s %s %s", m.Place, m.What, m.FS, strings.Join(m.Options, ","), m.From)
	if m.Starts {
		s += " starts"
	}
	if m.Needed {
		s += " needed"
	}
	return s
}

func mounts(t *testing.T, tree fs.FS) string {
	t.Helper()
	list, err := etc.Mounts(tree, "")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range list {
		if !m.Masked {
			lines = append(lines, describe(m))
		}
	}
	return strings.Join(lines, "\n")
}

// TestMounts has what systemd's own answer, in TestStartsAsSystemdSays, does not
// show: what is mounted, who says so, what is needed, conditions, absolute links.
func TestMounts(t *testing.T) {
	const units = "/etc/systemd/system/"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"nothing", nil, ""},
		{"fstab", map[string]string{"etc/fstab": "# head\nUUID=a / ext4 noauto,nofail 0 1\n\nLABEL=my\\040disk /srv auto ro,noauto\n" +
			"UUID=s swap swap\n10.0.0.1:/x /mnt/x nfs nofail,x-systemd.automount\n/dev/vdb1 /data/\n/dev/vdb2 /data ext4\n"},
			`/ UUID=a ext4 noauto,nofail /etc/fstab:2 starts needed
/data /dev/vdb1   /etc/fstab:7 starts needed
/mnt/x 10.0.0.1:/x nfs nofail,x-systemd.automount /etc/fstab:6 starts
/srv LABEL=my disk auto ro,noauto /etc/fstab:4`},
		{"fresh places are left out", map[string]string{
			"etc/fstab": "p /proc proc\np /sys/x x\ns /dev/shm tmpfs\nr /run tmpfs\nr /runner tmpfs\n"},
			"/runner r tmpfs  /etc/fstab:5 starts needed"},
		{"fstab by links", map[string]string{"etc/fstab": "a /var/run/x ext4\nb /home/u ext4\nc /a/up/b ext4\n",
			"var/run": "-> /run",
			"home":    "-> var/home", "a/up": "-> ../../../c/", "c/x": ""},
			"/c/b c ext4  /etc/fstab:3 starts needed\n/var/home/u b ext4  /etc/fstab:2 starts needed"},
		{"a unit on a link is not mounted", map[string]string{"home": "-> var/home",
			"e/home.mount":                       mount("/home"),
			"e/opt.mount":                        mount("/opt"),
			"e/local-fs.target.wants/home.mount": "-> x", "e/local-fs.target.wants/opt.mount": "-> x"},
			"/home tmpfs tmpfs  " + units + "home.mount\n/opt tmpfs tmpfs  " + units + "opt.mount starts"},
		{"units and drop-ins", map[string]string{
			"u/srv-a.mount":                                    "[Mount]\nWhat=x\nWhere=/srv/a\nType=ext4\nOptions=ro\n",
			"u/mount.d/30.conf":                                "[Mount]\nOptions=a,b\n",
			"u/srv-.mount.d/20.conf":                           "[Mount]\nOptions=c\nWhat=%%y\n",
			"e/srv-a.mount.d/40.conf":                          "[Mount]\nType=\n",
			"e/srv-a.mount.d/50.none":                          "[Mount]\nType=no\n",
			"e/srv-a.mount.d/.60.conf":                         "[Mount]\nType=no\n",
			"etc/systemd/system.control/srv-a.mount.d/30.conf": "[Mount]\nOptions=d,\\\n  e\n",
		}, "/srv/a %y  d, e /usr/lib/systemd/system/srv-a.mount"},
		{"needed", map[string]string{
			"etc/fstab": "a /a ext4 nofail\nb /a/b ext4 nofail\nc /c ext4 noauto\nd /c/d ext4 nofail\ne /e ext4 nofail\nf /e/f ext4\n" +
				"g /g ext4 noauto\nh /h ext4 x-systemd.automount\ni /i ext4 x-systemd.automount\n",
			"e/x.service": service("RequiresMountsFor=/g/x /i\nWantsMountsFor=/h"), "e/basic.target.wants/x.service": "-> x",
			"u/basic.target": "[Unit]\n"},
			`/a a ext4 nofail /etc/fstab:1 starts
/a/b b ext4 nofail /etc/fstab:2 starts
/c c ext4 noauto /etc/fstab:3 starts
/c/d d ext4 nofail /etc/fstab:4 starts
/e e ext4 nofail /etc/fstab:5 starts needed
/e/f f ext4  /etc/fstab:6 starts needed
/g g ext4 noauto /etc/fstab:7 starts needed
/h h ext4 x-systemd.automount /etc/fstab:8 starts
/i i ext4 x-systemd.automount /etc/fstab:9 starts needed`},
		{"automount", map[string]string{
			"e/a.mount":                           mount("/a"),
			"e/a.automount":                       "[Automount]\nWhere=/a\n",
			"e/local-fs.target.wants/a.automount": "-> x",
			"e/b.mount":                           mount("/b"),
			"e/b.automount":                       "[Automount]\nWhere=/c\n",
			"e/local-fs.target.wants/b.automount": "-> x",
			"e/c.mount":                           mount("/c"), "e/c.automount": "[Automount]\nWhere=/c\n",
			"e/d.mount": mount("/d"), "e/d.automount": "-> /dev/null", "e/local-fs.target.wants/d.automount": "-> x"},
			"/a tmpfs tmpfs  " + units + "a.mount starts\n/b tmpfs tmpfs  " + units + "b.mount\n" +
				"/c tmpfs tmpfs  " + units + "c.mount\n/d tmpfs tmpfs  " + units + "d.mount"},
		{"by default.target", map[string]string{"lib": "-> usr/lib",
			"etc/systemd/system/default.target": "-> /lib/systemd/system/graphical.target",
			"u/graphical.target":                "[Unit]\nRequires=multi-user.target\n",
			"u/multi-user.target":               "[Unit]\n",
			"u/rescue.target":                   "[Unit]\nWants=b.mount\n",
			"u/a.mount":                         mount("/a"),
			"u/b.mount":                         mount("/b"),
			"e/multi-user.target.wants/a.mount": "-> /lib/systemd/system/a.mount"},
			"/a tmpfs tmpfs  /usr/lib/systemd/system/a.mount starts\n/b tmpfs tmpfs  /usr/lib/systemd/system/b.mount"},
		{"by rescue.target without it", map[string]string{"u/rescue.target": "[Unit]\nWants=b.mount\n",
			"u/b.mount": mount("/b")},
			"/b tmpfs tmpfs  /usr/lib/systemd/system/b.mount starts"},
		{"a mask keeps all of fstab away", map[string]string{"etc/fstab": "a /a ext4\nb /b ext4\nc /c ext4\n",
			"e/a.mount":                      "-> /dev/null",
			"e/x.service":                    service("RequiresMountsFor=/c"),
			"e/basic.target.wants/x.service": "-> x",
			"u/basic.target":                 "[Unit]\n"},
			"/b b ext4  /etc/fstab:2\n/c c ext4  /etc/fstab:3 starts needed"},
		{"what generators may make is not missed", map[string]string{"e/a.mount": mount("/a"),
			"etc/init.d/old":                 "",
			"u/basic.target":                 "[Unit]\n",
			"e/x.service":                    service("Requires=old.service boot.mount swap.swap systemd-cryptsetup@x.service\nWants=a.mount"),
			"e/basic.target.wants/x.service": "-> x"}, "/a tmpfs tmpfs  " + units + "a.mount starts"},
		{"lib is a directory of its own", map[string]string{"lib/systemd/system/a.mount": mount("/a"),
			"u/a.mount":                       mount("/no"),
			"e/local-fs.target.wants/a.mount": "-> x"}, "/a tmpfs tmpfs  /lib/systemd/system/a.mount starts"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			files := map[string]string{"u/local-fs.target": "[Unit]\n", "u/remote-fs.target": "[Unit]\n"}
			for name, text := range tc.files {
				files[name] = text
			}
			if diff := cmp.Diff(tc.want, mounts(t, image(files))); diff != "" {
				t.Errorf("Mounts (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConditions(t *testing.T) {
	for conditions, want := range map[string]bool{
		"ConditionPathExists=/dir":                                          true,
		"ConditionPathExists=/none":                                         false,
		"ConditionPathExists=!/none":                                        true,
		"ConditionPathExists=/dir/link":                                     true,
		"ConditionPathIsDirectory=/file":                                    false,
		"ConditionPathIsSymbolicLink=/dir/link":                             true,
		"ConditionPathIsSymbolicLink=!/dir":                                 true,
		"ConditionDirectoryNotEmpty=/dir":                                   true,
		"ConditionFileNotEmpty=/empty":                                      false,
		"ConditionFileIsExecutable=/file":                                   false,
		"AssertPathExists=/none":                                            false,
		"ConditionPathExists=/none\nConditionVirtualization=":               true,
		"ConditionPathExists=/none\nAssertPathExists=":                      false,
		"ConditionPathExists=|/none\nConditionPathExists=|/dir":             true,
		"ConditionPathExists=|/none\nConditionPathExists=|!/dir":            false,
		"ConditionPathExists=/none\nConditionPathExists=|/dir":              false,
		"ConditionPathExists=/sys/none\nConditionVirtualization=!container": true,
		"ConditionPathExists=!/proc/none":                                   true,
		"ConditionFirstBoot=yes\nConditionKernelCommandLine=x":              true,
	} {
		tree := image(map[string]string{
			"e/a.mount":                       "[Unit]\n" + conditions + "\n" + mount("/a"),
			"e/local-fs.target.wants/a.mount": "-> x",
			"e/local-fs.target":               "[Unit]\n",
			"dir/link":                        "-> ../file", "file": "x", "empty": "",
		})
		if got := strings.HasSuffix(mounts(t, tree), " starts"); got != want {
			t.Errorf("%s: starts = %t", conditions, got)
		}
	}
}

// noLinks is a tree that does not know links.
type noLinks struct{ fs.FS }

func TestMountsOfATreeWithoutLinks(t *testing.T) {
	tree := noLinks{image(map[string]string{"etc/fstab": "a /a ext4\n", "u/local-fs.target": "[Unit]\n"})}
	if got := mounts(t, tree); got != "/a a ext4  /etc/fstab:1 starts needed" {
		t.Errorf("Mounts = %s", got)
	}
}

func TestMountsIsBounded(t *testing.T) {
	deep := strings.Repeat("/x", 300)
	for name, tree := range map[string]fs.FS{
		"files and directories without an end": endless{t},
		"a large fstab":                        image(map[string]string{"etc/fstab": strings.Repeat("#", 2<<20)}),
		"a large unit":                         image(map[string]string{"u/default.target": strings.Repeat("#", 2<<20)}),
		"a deep place":                         image(map[string]string{"etc/fstab": "a " + deep + " ext4\n"}),
		"many mounts":                          image(map[string]string{"etc/fstab": fstabOf(1001)}),
	} {
		list, err := etc.Mounts(tree, "")
		var classed interface{ Fault() string }
		if !errors.As(err, &classed) || classed.Fault() != "image" {
			t.Errorf("%s: %d mounts, %v, want an error that says it is the image's fault", name, len(list), err)
		}
	}
	if list, err := etc.Mounts(image(map[string]string{"etc/fstab": fstabOf(1000)}), ""); len(list) != 1000 || err != nil {
		t.Errorf("%d mounts, %v", len(list), err)
	}

	links := map[string]string{"etc/fstab": "a /l0 ext4\n", "u/local-fs.target": "[Unit]\n", "etc/systemd": "-> systemd"}
	for i := range 100 {
		links[fmt.Sprintf("l%d", i)] = fmt.Sprintf("-> /l%d/l%d", (i+1)%100, (i+2)%100)
	}
	if got := mounts(t, image(links)); strings.Contains(got, "starts") {
		t.Errorf("a mount on links in a circle: %s", got)
	}
}

// fstabOf is an fstab of so many lines.
func fstabOf(lines int) string {
	var b strings.Builder
	for n := range lines {
		fmt.Fprintf(&b, "a /%d tmpfs\n", n)
	}
	return b.String()
}

// TestManyUnits: ten thousand units, all of them connected, take no second, and
// what is built to take longer is refused in that time.
func TestManyUnits(t *testing.T) {
	many := map[string]string{"u/default.target": "[Unit]\nWants=u0.service\n"}
	for i := range 10000 {
		many[fmt.Sprintf("u/u%d.service", i)] = service(fmt.Sprintf("Wants=u%d.service\nRequires=u%d.service\nRequiresMountsFor=/a/b/c/%d",
			(i+1)%10000, (i*7)%10000, i))
	}
	many["u/a-b.mount"] = mount("/a/b")
	hostile := map[string]string{"u/default.target": "[Unit]\nWants=u0.service\n"}
	for i := range 1000 {
		hostile[fmt.Sprintf("u/u%d.service", i)] = service("")
		hostile[fmt.Sprintf("u/service.wants/u%d.service", i)] = "-> x"
		hostile[fmt.Sprintf("u/m%d.mount", i)] = mount(fmt.Sprintf("/m%d", i))
	}
	for name, files := range map[string]map[string]string{"many": many, "hostile": hostile} {
		tree := os.DirFS(write(t, files))
		began := time.Now()
		list, err := etc.Mounts(tree, "")
		if took := time.Since(began); took > 4*time.Second { // a second, but for the race detector and a busy machine
			t.Errorf("%s: %v", name, took)
		}
		if name == "many" && (err != nil || len(list) != 1 || !list[0].Needed) {
			t.Errorf("%s: %v, %v", name, list, err)
		}
		if name == "hostile" && !errors.Is(err, etc.ErrTooMuch) {
			t.Errorf("%s: %v, want %v", name, err, etc.ErrTooMuch)
		}
	}
}
