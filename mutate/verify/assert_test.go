package verify_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/verify"
	"github.com/imgmut/imgmut/recipes"
)

// guest is an image of a few files, in which commands print what they are told.
type guest struct {
	output map[string]string // by the command
	code   map[string]int
	broken error
}

var files = map[string]string{
	"/etc/os-release": "ID=debian\n",
	"/etc/passwd":     "root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:\n",
	"/etc/motd":       "hello\nworld\n",

	"/usr/bin/dpkg-query": "",
}

func (g *guest) Exec(_ context.Context, c agent.Command, network bool, out func([]byte)) error {
	if g.broken != nil {
		return g.broken
	}
	if network {
		return errors.New("an assertion has no business in the network")
	}
	line := c.Script + strings.Join(c.Argv, " ")
	out([]byte(g.output[line]))
	if code := g.code[line]; code != 0 {
		return &agent.ExitError{Command: "it", Code: code, Reason: fmt.Sprintf("exit status %d", code)}
	}
	return nil
}

func (g *guest) ReadFile(_ context.Context, name string) ([]byte, error) {
	if s, ok := files[name]; ok && g.broken == nil {
		return []byte(s), nil
	}
	return nil, g.missing(name)
}

func (g *guest) Stat(_ context.Context, name string) (*agent.Stat, error) {
	if s, ok := files[name]; ok && g.broken == nil {
		return &agent.Stat{Mode: 0o640, Size: int64(len(s)), UID: 33, GID: 4, User: "www-data", Group: "adm"}, nil
	}
	return nil, g.missing(name)
}

func (g *guest) missing(name string) error {
	if g.broken != nil {
		return g.broken
	}
	return &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// decode reads the assertions of a recipe.
func decode(t *testing.T, assertions ...string) ([]verify.Assertion, error) {
	t.Helper()
	text := "version: 1\nname: x\nbase: y\nverify:\n"
	for _, a := range assertions {
		text += "  - " + a + "\n"
	}
	r, err := recipes.Parse("recipe.yaml", []byte(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return verify.Decode(r)
}

func TestCheck(t *testing.T) {
	g := &guest{
		output: map[string]string{
			"systemctl is-enabled -- a.service": "enabled\n",
			"systemctl is-enabled -- b.service": "disabled\n",
			"systemctl is-enabled -- c.service": "masked\n",
			`dpkg-query --show --showformat=${db:Status-Status}\t${Package}\t${Architecture}\t${Version}\n`: "" +
				"installed\tcurl\tamd64\t7.88.1-10\nconfig-files\tnano\tamd64\t7.2-1\n",
			"fails": "1\n2\n3\n4\n5\n6\n", "works": "fine\n",
		},
		code: map[string]int{
			"systemctl is-enabled -- b.service": 1, "systemctl is-enabled -- c.service": 1,
			"systemctl is-enabled -- gone.service": 1,
			"fails":                                3, "false": 1,
		},
	}
	for _, tc := range []struct{ in, name, want string }{ // want: how it does not hold; empty if it does
		{`file: /etc/motd`, "file /etc/motd", ""},
		{`file: /etc/gone`, "file /etc/gone", "/etc/gone is not there"},
		{`file: {path: /etc/motd, mode: "0640", owner: "www-data:adm", content: "hello\nworld\n", regex: "^h.*o"}`,
			"file /etc/motd", ""},
		{`file: {path: /etc/motd, owner: "33:4"}`, "file /etc/motd", ""},
		{`file: {path: /etc/motd, mode: "0644"}`, "file /etc/motd", "/etc/motd has mode 0640, not 0644"},
		{`file: {path: /etc/motd, owner: root}`, "file /etc/motd", "/etc/motd belongs to user www-data (33), not root"},
		{`file: {path: /etc/motd, owner: "www-data:root"}`, "file /etc/motd", "/etc/motd belongs to group adm (4), not root"},
		{`file: {path: /etc/motd, content: "hello\nthere\n"}`, "file /etc/motd",
			`/etc/motd has other content: line 2 is "world", not "there"`},
		{`file: {path: /etc/motd, content: "hello\nworld\nmore\n"}`, "file /etc/motd", `line 3 is "", not "more"`},
		{`file: {path: /etc/motd, content: "hello\n"}`, "file /etc/motd", `line 2 is "world", not ""`},
		{`file: {path: /etc/motd, content: ""}`, "file /etc/motd", `line 1 is "hello", not ""`},
		{`file: {path: /etc/motd, regex: "moon"}`, "file /etc/motd", `/etc/motd holds nothing that matches "moon"`},
		{`absent: /etc/gone`, "absent /etc/gone", ""},
		{`absent: /etc/motd`, "absent /etc/motd", "/etc/motd is there"},
		{`package: curl`, "package curl", ""},
		{`package: "curl:amd64=7.88.1-10"`, "package curl:amd64=7.88.1-10", ""},
		{`package: nano`, "package nano", "package nano is not installed"},
		{`package: gone`, "package gone", "package gone is not installed"},
		{`package: "curl:i386"`, "package curl:i386", "package curl:i386 is not installed, but curl:amd64=7.88.1-10"},
		{`unit: a.service`, "unit a.service", ""},
		{`unit: {name: b.service, state: disabled}`, "unit b.service", ""},
		{`unit: {name: c.service, state: masked}`, "unit c.service", ""},
		{`unit: b.service`, "unit b.service", "unit b.service is disabled, not enabled"},
		{`unit: gone.service`, "unit gone.service", "not enabled"},
		{`user: www-data`, "user www-data", ""},
		{`user: www`, "user www", "the image has no user www"},
		{`command: works`, "command works", ""},
		{`command: [works]`, "command works", ""},
		{`command: fails`, "command fails", "it: exit status 3: 2; 3; 4; 5; 6"},
		{`command: "false"`, "command false", "it: exit status 1"},
	} {
		t.Run(tc.in, func(t *testing.T) {
			all, err := decode(t, tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if got := all[0].Value.String(); got != tc.name {
				t.Errorf("its name is %q, want %q", got, tc.name)
			}
			err = all[0].Value.Check(t.Context(), g)
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("Check: %v, want %q", err, tc.want)
			}
			// A guest that cannot be asked is no verdict.
			broken := errors.New("the guest is gone")
			if err := all[0].Value.Check(t.Context(), &guest{broken: broken}); !errors.Is(err, broken) {
				t.Errorf("Check in a broken guest: %v", err)
			}
		})
	}
}

func TestDecodeProblems(t *testing.T) {
	for in, want := range map[string]string{
		`fil: /x`:                               "no such kind: fil (there are file, absent, package, unit, user, command)",
		`file: x`:                               `"x": want an absolute path in the image`,
		`file: {path: /x, regex: "("}`:          "file.regex: ",
		`file: {path: /x, mode: "rw"}`:          `"rw": want octal permissions`,
		`file: {path: /x, owner: "a b"}`:        `"a b": want USER or USER:GROUP`,
		`file: {path: /x, size: 1}`:             "size",
		`absent: x`:                             `"x": want an absolute path`,
		`package: nano/stable`:                  `"nano/stable": want one package`,
		`package: -y`:                           `"-y" is not the name of a package`,
		`unit: nginx`:                           `"nginx": want a full unit name`,
		`unit: {name: a.service, state: alive}`: `"alive": want one of enabled, disabled, masked, static`,
		`user: "a:b"`:                           `"a:b" is not the name of a user`,
		`command: {script: x, argv: [y]}`:       "want either a script or a list",
		`command: ""`:                           "want either a script or a list",
	} {
		_, err := decode(t, in)
		var problems recipes.Problems
		if !errors.As(err, &problems) || len(problems) != 1 || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want one problem: %s", in, err, want)
		}
	}
}

// TestAssertions: they are asked of a guest only if the image is sound, and one
// that does not hold fails by its name.
func TestAssertions(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	path := small(t)
	all, err := decode(t, "file: /etc/motd", "user: nobody", "absent: /x")
	if err != nil {
		t.Fatal(err)
	}
	started := 0
	r := verify.Request{Assertions: all,
		Guest: func(context.Context) (verify.Guest, error) { started++; return &guest{}, nil }}
	v, err := judge(t, path, r)
	if err != nil {
		t.Fatal(err)
	}
	if failed := v.Failed(); v.OK || len(failed) != 1 || failed[0].Name != "user nobody" ||
		failed[0].Detail != "the image has no user nobody" {
		t.Errorf("failed: %+v", failed)
	}
	if n := len(v.Checks); n != 10 || started != 1 {
		t.Errorf("%d checks in %d guests, want 10 in 1", n, started)
	}

	gone := errors.New("no guest")
	r.Guest = func(context.Context) (verify.Guest, error) { return nil, gone }
	if v, err := judge(t, path, r); !errors.Is(err, gone) {
		t.Errorf("Image = %+v, %v; want %v", v, err, gone)
	}

	debugfs(t, path, "sif etc links_count 40")
	if v, err := judge(t, path, r); err != nil || v.OK || len(v.Checks) != 7 {
		t.Errorf("an unsound image: %+v, %v; want no guest to be started", v, err)
	}
}
