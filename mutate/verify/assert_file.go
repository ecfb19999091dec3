package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/recipes"
)

var fileKind = recipes.Kind[Claim]{
	Name:    "file",
	Version: 1,
	Summary: "a file is there, with this content, mode or owner",
	Example: `
- file: {path: /etc/motd, content: "hello\n", mode: "0644", owner: root:root}
- file: {path: /etc/ssh/sshd_config, regex: "(?m)^PermitRootLogin no$"}
`,
	New: func() Claim { return new(File) },
}

// File asserts that a file is there and what it is.
type File struct {
	Path    string  `yaml:"path" json:"path,omitempty"`
	Content *string `yaml:"content" json:"content,omitempty"` // the whole of it
	Regex   string  `yaml:"regex" json:"regex,omitempty"`     // RE2, found anywhere in it
	Mode    string  `yaml:"mode" json:"mode,omitempty"`       // octal
	Owner   string  `yaml:"owner" json:"owner,omitempty"`     // USER or USER:GROUP
}

// FromScalar reads the short form, a path.
func (f *File) FromScalar(s string) error { f.Path = s; return nil }

func (f *File) String() string { return "file " + f.Path }

// Validate implements [Claim].
func (f *File) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	v.Check("path", absolute(f.Path))
	v.Check("regex", expression(f.Regex))
	if f.Mode != "" {
		_, err := agent.ParseMode(f.Mode)
		v.Check("mode", err)
	}
	if f.Owner != "" {
		v.Check("owner", agent.CheckOwner(f.Owner))
	}
	return v.Problems()
}

// Check implements [Claim].
func (f *File) Check(ctx context.Context, g Guest) error {
	st, err := g.Stat(ctx, f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return unmetf("%s is not there", f.Path)
	}
	if err != nil {
		return err
	}
	if mode, _ := agent.ParseMode(f.Mode); f.Mode != "" && mode != st.Mode {
		return unmetf("%s has mode %04o, not %04o", f.Path, st.Mode, mode)
	}
	if err := f.checkOwner(st); err != nil {
		return err
	}
	if f.Content == nil && f.Regex == "" {
		return nil
	}
	b, err := g.ReadFile(ctx, f.Path)
	if err != nil {
		return err
	}
	if f.Content != nil && string(b) != *f.Content {
		return unmetf("%s has other content: %s", f.Path, firstDifference(b, []byte(*f.Content)))
	}
	if f.Regex != "" && !regexp.MustCompile(f.Regex).Match(b) {
		return unmetf("%s holds nothing that matches %q", f.Path, f.Regex)
	}
	return nil
}

func (f *File) checkOwner(st *agent.Stat) error {
	if f.Owner == "" {
		return nil
	}
	if st.UID < 0 {
		return unmetf("%s is on a FAT volume, which keeps no owners: whom it will belong to is not known", f.Path)
	}
	user, group, grouped := strings.Cut(f.Owner, ":")
	if user != st.User && user != strconv.Itoa(st.UID) {
		return unmetf("%s belongs to user %s (%d), not %s", f.Path, st.User, st.UID, user)
	}
	if grouped && group != st.Group && group != strconv.Itoa(st.GID) {
		return unmetf("%s belongs to group %s (%d), not %s", f.Path, st.Group, st.GID, group)
	}
	return nil
}

// firstDifference shows where two contents part.
func firstDifference(got, want []byte) string {
	n := 0
	for n < len(got) && n < len(want) && got[n] == want[n] {
		n++
	}
	line := 1 + bytes.Count(got[:n], []byte("\n"))
	from := 1 + bytes.LastIndexByte(got[:n], '\n')
	return fmt.Sprintf("line %d is %q, not %q", line, lineAt(got, from), lineAt(want, from))
}

func lineAt(b []byte, from int) string {
	line, _, _ := bytes.Cut(b[from:], []byte("\n"))
	return string(line[:min(len(line), 80)])
}
