package packages_test

import (
	"context"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/packages"
)

// image is the files of an image. Of programs only that they are there.
type image map[string]string

func (i image) ReadFile(_ context.Context, name string) ([]byte, error) {
	if s, ok := i[name]; ok && s == "broken" {
		return nil, errBroken
	} else if ok {
		return []byte(s), nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func (i image) Stat(_ context.Context, name string) (*agent.Stat, error) {
	if s, ok := i[name]; !ok {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
	} else if s == "broken" {
		return nil, errBroken
	}
	return &agent.Stat{}, nil
}

var errBroken = errors.New("broken")

// with is an image with that os-release and those programs.
func with(release string, programs ...string) image {
	i := image{}
	if release != "" {
		i["/etc/os-release"] = release
	}
	for _, p := range programs {
		i[p] = ""
	}
	return i
}

const (
	aptGet   = "/usr/bin/apt-get"
	dnf      = "/usr/bin/dnf"
	dnf5     = "/usr/bin/dnf5"
	microdnf = "/usr/bin/microdnf"
	zypper   = "/usr/bin/zypper"
	pacman   = "/usr/bin/pacman"
	apk      = "/sbin/apk"
)

func TestFind(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files image
		want  string // the manager, or what the error says
	}{
		{"debian", with("ID=debian\n", aptGet), "apt-get"},
		{"by ID_LIKE", with("ID=mint\nID_LIKE=\"ubuntu debian\"\n", aptGet), "apt-get"},
		{"in /usr", image{"/usr/lib/os-release": "ID=arch\n", pacman: "", aptGet: ""}, "pacman"},
		{"fedora", with("ID=fedora\n", dnf5, dnf, microdnf), "dnf5"},
		{"an older fedora", with("ID=fedora\n", dnf, microdnf), "dnf"},
		{"a minimal rhel", with("ID=\"rhel\"\nID_LIKE=\"fedora\"\n", microdnf), "microdnf"},
		{"rocky", with("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", dnf, zypper), "dnf"},
		{"tumbleweed", with("ID=\"opensuse-tumbleweed\"\nID_LIKE=\"opensuse suse\"\n", dnf, zypper), "zypper"},
		{"alpine", with("ID=alpine\n", apk), "apk"},
		{"alpine where all is in /usr", with("ID=alpine\n", "/usr/bin/apk"), "apk"},
		{"the ID comes before what it is like", with("ID=arch\nID_LIKE=debian\n", aptGet, pacman), "pacman"},
		{"a debian with all", with("ID=debian\n", dnf5, dnf, microdnf, zypper, pacman, apk, aptGet), "apt-get"},
		{"an unknown one with apt", with("ID=mine\n", aptGet), "apt-get"},
		{"one with another's", with("ID=fedora\n", zypper), "zypper"},
		{"without os-release", with("", pacman), "pacman"},
		{"nothing", with("ID=fedora\n"), `the image is "fedora", and has none of /usr/bin/dnf5, /usr/bin/dnf, ` +
			"/usr/bin/microdnf, /usr/bin/apt-get, /usr/bin/zypper, /usr/bin/pacman, /sbin/apk, /usr/bin/apk"},
		{"nothing at all", with(""), "the image has no os-release, and has none of /usr/bin/apt-get, "},
		{"an os-release that cannot be read", image{"/etc/os-release": "broken", aptGet: ""},
			"find the package manager: broken"},
		{"one that cannot be looked at", image{dnf5: "broken", aptGet: "", "/etc/os-release": "ID=fedora\n"},
			"find the package manager: broken"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := packages.Find(t.Context(), tc.files)
			if got := m.Name; err == nil && got != tc.want || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Find: %s, %v, want %q", got, err, tc.want)
			}
		})
	}
}

// find gives the manager that has a program.
func find(t *testing.T, program string) packages.Manager {
	t.Helper()
	m, err := packages.Find(t.Context(), with("", program))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestCommand: what a change comes down to. Whether it does what it should is
// tried in real images by the scripts packages*.txtar.
func TestCommand(t *testing.T) {
	for _, tc := range []struct {
		change packages.Change
		want   string // the end of the script
	}{
		{packages.Change{Install: []string{"a", "b"}}, "use_lists || fetch_aside\ninstall 'a' 'b'\nfinish\nclear\n"},
		{packages.Change{Update: true, Remove: []string{"c"}, Install: []string{"a"}},
			"}\nfetch_aside\nonly_installed remove 'c'\ninstall 'a'\nfinish\nclear\n"},
		{packages.Change{Remove: []string{"c"}}, "}\nonly_installed remove 'c'\nfinish\nclear\n"},
		{packages.Change{UpgradeAll: true}, "}\nfetch_aside\nupgrade_all\nfinish\nclear\n"},
		{packages.Change{Upgrade: []string{"a"}}, "}\nfetch_aside\nonly_installed upgrade 'a'\nfinish\nclear\n"},
		{packages.Change{KeepLists: true, Install: []string{"a"}}, "}\nfetch\ninstall 'a'\nfinish\nclear\n"},
	} {
		for _, program := range []string{aptGet, dnf5, dnf, microdnf, zypper, pacman, apk} {
			m := find(t, program)
			c, err := m.Command(tc.change)
			if err != nil || !strings.HasSuffix(c.Script, tc.want) || c.Title != m.Name {
				t.Errorf("%s: %+v: %v, %s:\n%s\nwant it to end in\n%s", m.Name, tc.change, err, c.Title, c.Script, tc.want)
			}
			for _, word := range []string{"fetch()", "fetch_aside()", "use_lists()", "installed()", "remove()", "upgrade()",
				"upgrade_all()", "install()", "finish()"} {
				if !strings.Contains(c.Script, "\n"+word+" {") {
					t.Errorf("%s has no word %s", m.Name, word)
				}
			}
			started := c.Env["SYSTEMD_OFFLINE"] != "1"
			if program == aptGet {
				started = len(c.Covers) != 1 || c.Covers[0].Path != "/usr/sbin/policy-rc.d"
			}
			if started && program != apk { // whose packages start nothing
				t.Errorf("%s: services could be started: %+v", m.Name, c)
			}
		}
	}
}

func TestCommandOfFiles(t *testing.T) {
	for program, ending := range map[string]string{
		aptGet: ".deb", dnf5: ".rpm", dnf: ".rpm", microdnf: ".rpm", zypper: ".rpm", pacman: ".pkg.tar", apk: ".apk",
	} {
		m := find(t, program)
		for _, file := range []string{"/x.deb", "/x.rpm", "/x.pkg.tar.zst", "/x.apk"} {
			c, err := m.Command(packages.Change{Install: []string{file}})
			switch {
			case strings.HasPrefix(file, "/x"+ending):
				if err != nil || !strings.Contains(c.Script, "\ninstall '"+file+"'\n") {
					t.Errorf("%s: %s: %v\n%s", m.Name, file, err, c.Script)
				}
			case err == nil || !strings.HasSuffix(err.Error(), ", which takes files that end in "+ending):
				t.Errorf("%s: %s: %v", m.Name, file, err)
			}
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, right := range map[string]bool{
		"nginx": true, "bash-": false, "libc6:i386": true, "curl=7.88.1-10+deb12u5": true, "g++": true,
		"nano/bookworm-backports": true, "-y": false, "a b": false, "": false, "a'b": false, "a;b": false, "$x": false,
		"/x.deb": false, "./x.deb": false, "x/y.deb": false,
	} {
		if err := packages.CheckName(name); (err == nil) != right {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckInstall(t *testing.T) {
	for name, want := range map[string]string{ // what is wrong
		"nginx": "", "nano/bookworm-backports": "", "./x.deb": "", "sub/x.rpm": "", "/root/x.pkg.tar.zst": "", "./x.pkg.tar": "",
		"./sub/x_1.0-1+b1~y@z%3a1,^=.apk": "",
		"-y":                              `"-y" is not the name of a package`,
		"x.deb":                           `"x.deb": a file beside the recipe is written ./x.deb`,
		"./x":                             `"./x": want a file that ends in .deb, .rpm, .apk or .pkg.tar.zst`,
		"/root/x":                         `"/root/x": want a file that ends in`,
		"../x":                            `"../x": want a file that ends in`,
		"./x'y.deb":                       `"./x'y.deb": want a path of letters`,
		"../x.deb":                        `"../x.deb": want a path inside the recipe's own directory`,
		"./x//y.deb":                      `"./x//y.deb": want a path inside`,
		"/root/../x.deb":                  `"/root/../x.deb": want a clean absolute path in the image`,
	} {
		err := packages.CheckInstall(name)
		if (err == nil) != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

// TestBeside: what is a file beside the recipe, and where it is put.
func TestBeside(t *testing.T) {
	for name, want := range map[string]string{
		"./x.deb": "/var/cache/imgmut/files/x.deb", "sub/x.rpm": "/var/cache/imgmut/files/sub/x.rpm",
		"/x.deb": "", "x": "", "nano/bookworm-backports": "",
	} {
		got, ok := packages.Beside(name)
		if ok != (want != "") || ok && packages.Place(got) != want {
			t.Errorf("%s: %q, %t", name, got, ok)
		}
	}
}
