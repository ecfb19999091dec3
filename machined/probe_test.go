package machined

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestProbe(t *testing.T) {
	h := openTestHost(t) // so the private host's needs are met here
	seen := map[string]bool{}
	for _, c := range Probe(t.Context()) {
		seen[c.Name] = true
		if strings.Contains(c.Name, "udev") {
			t.Errorf("Probe() asks for %s, which nothing needs", c.Name)
		}
		if (c.Err == nil) == (c.Found == "") {
			t.Errorf("%s: found %q and error %v", c.Name, c.Found, c.Err)
		}
		if c.Mend == "" {
			t.Errorf("%s has no mend", c.Name)
		}
		if c.Err != nil && c.Mode != System {
			t.Errorf("%s: %v, but a %s host runs", c.Name, c.Err, h.Mode())
		}
	}
	for _, name := range []string{"root", "systemd-nspawn", "systemd-machined", "cgroup2", "loop devices"} {
		if !seen[name] {
			t.Errorf("Probe() says nothing of %s", name)
		}
	}
}

func TestMissingError(t *testing.T) {
	absent := programCheck("systemd-nspawn", []string{"/nonexistent/nspawn"}, "install it", Private)
	err := missing(Private, []Check{{Name: "root"}, absent})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "systemd-nspawn: no /nonexistent/nspawn") {
		t.Errorf("missing() = %v", err)
	}
	if strings.Contains(err.Error(), "root") {
		t.Errorf("missing() = %v names a check that passed", err)
	}
	denied := missing(Private, []Check{{Name: "cgroup2", Err: fs.ErrPermission}})
	if !errors.Is(denied, fs.ErrPermission) {
		t.Errorf("missing() = %v hides its cause", denied)
	}
	if err := missing(Private, []Check{{Name: "root"}}); err != nil {
		t.Errorf("missing() with nothing missing = %v", err)
	}
}

func TestParseVersion(t *testing.T) {
	for in, want := range map[string]int{
		"252 (252.39-1~deb12u1)": 252, "257.13-1": 257, "v258~rc1": 258, "262~devel": 262, "252": 252,
		"": 0, "devel": 0, "v": 0,
	} {
		got, err := parseVersion(in)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("parseVersion(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
}
