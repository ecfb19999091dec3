package packages_test

import (
	"context"
	"io/fs"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/packages"
)

// image is the files of an image.
type image map[string]string

func (i image) ReadFile(_ context.Context, name string) ([]byte, error) {
	if s, ok := i[name]; ok {
		return []byte(s), nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

func TestFind(t *testing.T) {
	for _, tc := range []struct {
		name  string
		files image
		want  string // of the error
	}{
		{"by ID", image{"/etc/os-release": "ID=ubuntu\n"}, ""},
		{"by ID_LIKE", image{"/etc/os-release": "ID=mint\nID_LIKE=\"ubuntu debian\"\n"}, ""},
		{"in /usr", image{"/usr/lib/os-release": "ID=debian\n"}, ""},
		{"unknown", image{"/etc/os-release": "ID=fedora\n"},
			`the image is "fedora", and imgmut knows those of debian, ubuntu`},
		{"none", nil, "find the package manager: open /usr/lib/os-release"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, err := packages.Find(t.Context(), tc.files)
			refused := err != nil && strings.Contains(err.Error(), tc.want)
			if tc.want == "" && (err != nil || m.Name != "apt") || tc.want != "" && !refused {
				t.Errorf("Find: %s, %v, want %q", m.Name, err, tc.want)
			}
		})
	}
}

// TestCommands: what a change comes down to. Whether it does what it should is
// tried in a real image by the script packages.txtar.
func TestCommands(t *testing.T) {
	m, err := packages.Find(t.Context(), image{"/etc/os-release": "ID=debian\n"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		change packages.Change
		want   string // the end of the script
	}{
		{packages.Change{Install: []string{"a", "b"}}, "has_lists || fetch_aside\nget install -- 'a' 'b'\n"},
		{packages.Change{Update: true, Remove: []string{"c"}, Install: []string{"a"}},
			"}\nfetch_aside\nget remove -- 'c'\nget install -- 'a'\n"},
		{packages.Change{Remove: []string{"c"}}, "}\nget remove -- 'c'\n"},
		{packages.Change{UpgradeAll: true}, "}\nfetch_aside\nget upgrade --with-new-pkgs\n"},
		{packages.Change{Upgrade: []string{"a"}}, "}\nfetch_aside\nget install --only-upgrade -- 'a'\n"},
		{packages.Change{KeepLists: true, Install: []string{"a"}}, "}\nfetch\nget install -- 'a'\n"},
	} {
		all := m.Commands(tc.change)
		if len(all) != 1 || !strings.HasSuffix(all[0].Script, tc.want) {
			t.Errorf("%+v:\n%s\nwant it to end in\n%s", tc.change, all[0].Script, tc.want)
		}
		if len(all[0].Covers) != 1 || all[0].Covers[0].Path != "/usr/sbin/policy-rc.d" {
			t.Errorf("%+v: services could be started: %+v", tc.change, all[0].Covers)
		}
	}
}

func TestCheckName(t *testing.T) {
	for name, right := range map[string]bool{
		"nginx": true, "bash-": false, "libc6:i386": true, "curl=7.88.1-10+deb12u5": true, "g++": true, "nano/bookworm-backports": true,
		"-y": false, "a b": false, "": false, "a'b": false, "a;b": false, "$x": false,
	} {
		if err := packages.CheckName(name); (err == nil) != right {
			t.Errorf("%s: %v", name, err)
		}
	}
}
