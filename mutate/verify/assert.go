package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/recipes"
)

// Guest is the image, running read-only.
type Guest interface {
	Exec(ctx context.Context, c agent.Command, network bool, out func([]byte)) error
	ReadFile(ctx context.Context, name string) ([]byte, error)
	Stat(ctx context.Context, name string) (*agent.Stat, error)
}

// Assertion is one thing that a recipe says must hold.
type Assertion interface {
	// Validate gives every problem with the options at once.
	Validate(o recipes.Options) recipes.Problems
	// Check is nil if it holds, an error of type unmet if not, and another
	// error if it could not be found out.
	Check(ctx context.Context, g Guest) error
	// String names it in the verdict.
	String() string
}

// kinds are the kinds of assertions, by their key in a recipe.
var kinds = map[string]func() Assertion{
	"file":    func() Assertion { return new(File) },
	"absent":  func() Assertion { return new(Absent) },
	"package": func() Assertion { return new(Package) },
	"unit":    func() Assertion { return new(Unit) },
	"user":    func() Assertion { return new(User) },
	"command": func() Assertion { return new(Command) },
}

// Decode reads the assertions of a recipe and gives all their problems.
func Decode(r *recipes.Recipe) ([]Assertion, error) {
	var all []Assertion
	var problems recipes.Problems
	for _, a := range r.Verify {
		kind, ok := kinds[a.Kind]
		if !ok {
			problems = append(problems, a.Options.Problem("", "no such assertion: %s (there are %s)", a.Kind, strings.Join(slices.Sorted(maps.Keys(kinds)), ", ")))
			continue
		}
		assertion := kind()
		all, problems = append(all, assertion), append(problems, a.Options.Read(assertion)...)
	}
	if len(problems) > 0 {
		return nil, problems
	}
	return all, nil
}

// unmet is the way in which an assertion does not hold.
type unmet string

func (u unmet) Error() string { return string(u) }

func unmetf(format string, args ...any) error { return unmet(fmt.Sprintf(format, args...)) }

// assertAll checks the assertions in one guest.
func assertAll(ctx context.Context, r Request) ([]record.Check, error) {
	g, err := r.Guest(ctx)
	if err != nil {
		return nil, err
	}
	var checks []record.Check
	for _, a := range r.Assertions {
		started := time.Now()
		err := a.Check(ctx, g)
		var why unmet
		var refused *agent.GuestError
		if errors.As(err, &refused) { // it cannot be looked at, so it does not hold
			why = unmet(refused.Error())
		} else if err != nil && !errors.As(err, &why) {
			return nil, fmt.Errorf("check %s: %w", a, err)
		}
		checks = append(checks, record.Check{Name: a.String(), OK: err == nil, Detail: string(why), Took: time.Since(started)})
	}
	return checks, nil
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

// Validate implements [Assertion].
func (f *File) Validate(o recipes.Options) recipes.Problems {
	var ps recipes.Problems
	if !path.IsAbs(f.Path) {
		ps = append(ps, o.Problem("path", "%q: want an absolute path in the image", f.Path))
	}
	if _, err := regexp.Compile(f.Regex); err != nil {
		ps = append(ps, o.Problem("regex", "%v", err))
	}
	if _, err := strconv.ParseUint(f.Mode, 8, 12); err != nil && f.Mode != "" {
		ps = append(ps, o.Problem("mode", `%q: want octal permissions such as "0644"`, f.Mode))
	}
	return ps
}

// Check implements [Assertion].
func (f *File) Check(ctx context.Context, g Guest) error {
	st, err := g.Stat(ctx, f.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return unmetf("%s is not there", f.Path)
	}
	if err != nil {
		return err
	}
	if mode, _ := strconv.ParseUint(f.Mode, 8, 12); f.Mode != "" && uint32(mode) != st.Mode {
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

// Absent asserts that nothing is at a path, not even a dangling link.
type Absent struct {
	Path string `yaml:"path" json:"path,omitempty"`
}

// FromScalar reads the short form, a path.
func (a *Absent) FromScalar(s string) error { a.Path = s; return nil }

func (a *Absent) String() string { return "absent " + a.Path }

// Validate implements [Assertion].
func (a *Absent) Validate(o recipes.Options) recipes.Problems {
	if !path.IsAbs(a.Path) {
		return recipes.Problems{o.Problem("path", "%q: want an absolute path in the image", a.Path)}
	}
	return nil
}

// Check implements [Assertion].
func (a *Absent) Check(ctx context.Context, g Guest) error {
	_, err := g.Stat(ctx, a.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil
	case err == nil:
		return unmetf("%s is there", a.Path)
	}
	return err
}

// Package asserts that a package is installed.
type Package struct {
	Name string `yaml:"name" json:"name,omitempty"`
}

// FromScalar reads the short form, a name.
func (p *Package) FromScalar(s string) error { p.Name = s; return nil }

func (p *Package) String() string { return "package " + p.Name }

// Validate implements [Assertion].
func (p *Package) Validate(o recipes.Options) recipes.Problems {
	if p.Name == "" || strings.HasPrefix(p.Name, "-") {
		return recipes.Problems{o.Problem("name", "%q is not the name of a package", p.Name)}
	}
	return nil
}

// Check implements [Assertion].
func (p *Package) Check(ctx context.Context, g Guest) error {
	installed, err := step.Installed(ctx, g, p.Name)
	if err == nil && !installed {
		return unmetf("package %s is not installed", p.Name)
	}
	return err
}

// unitStates are the states that can be asserted (systemctl(1), is-enabled).
var unitStates = []string{"enabled", "disabled", "masked", "static"}

// Unit asserts whether a unit is started at boot.
type Unit struct {
	Name  string `yaml:"name" json:"name,omitempty"`
	State string `yaml:"state" json:"state,omitempty"` // enabled, disabled, masked or static; enabled if empty
}

func (u *Unit) String() string { return "unit " + u.Name }

// FromScalar reads the short form, the name of a unit that must be enabled.
func (u *Unit) FromScalar(s string) error { u.Name = s; return nil }

// Validate implements [Assertion].
func (u *Unit) Validate(o recipes.Options) recipes.Problems {
	var ps recipes.Problems
	if !strings.Contains(u.Name, ".") || strings.HasPrefix(u.Name, "-") {
		ps = append(ps, o.Problem("name", "%q: want a full unit name such as nginx.service", u.Name))
	}
	if u.State == "" {
		u.State = "enabled"
	}
	if !slices.Contains(unitStates, u.State) {
		ps = append(ps, o.Problem("state", "%q: want one of %s", u.State, strings.Join(unitStates, ", ")))
	}
	return ps
}

// Check implements [Assertion].
func (u *Unit) Check(ctx context.Context, g Guest) error {
	var out lastOutput
	err := g.Exec(ctx, step.Systemctl("is-enabled", "--", u.Name), false, out.add)
	var exit *agent.ExitError
	if err != nil && !errors.As(err, &exit) { // its status is 1 for a disabled unit
		return err
	}
	state := strings.TrimSpace(string(out))
	switch {
	case state == u.State:
		return nil
	case strings.ContainsAny(state, " \n"): // no state, but why there is none
		return unmetf("unit %s is not there: %s", u.Name, state)
	}
	return unmetf("unit %s is %s, not %s", u.Name, state, u.State)
}

// User asserts that the image has a user.
type User struct {
	Name string `yaml:"name" json:"name,omitempty"`
}

// FromScalar reads the short form, a name.
func (u *User) FromScalar(s string) error { u.Name = s; return nil }

func (u *User) String() string { return "user " + u.Name }

// Validate implements [Assertion].
func (u *User) Validate(o recipes.Options) recipes.Problems {
	if u.Name == "" || strings.Contains(u.Name, ":") {
		return recipes.Problems{o.Problem("name", "%q is not the name of a user", u.Name)}
	}
	return nil
}

// Check implements [Assertion].
func (u *User) Check(ctx context.Context, g Guest) error {
	b, err := g.ReadFile(ctx, "/etc/passwd")
	if err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		if name, _, _ := bytes.Cut(line, []byte(":")); string(name) == u.Name {
			return nil
		}
	}
	return unmetf("the image has no user %s", u.Name)
}

// commandTime is how long a command may take that asserts something.
const commandTime = 5 * time.Minute

// lastOutput keeps the end of what a program prints, in bounds.
type lastOutput []byte

func (o *lastOutput) add(b []byte) {
	*o = append(*o, b...)
	*o = (*o)[max(0, len(*o)-64<<10):]
}

// Command asserts that a program succeeds in the read-only image.
type Command struct {
	Script string   `yaml:"script" json:"script,omitempty"`
	Argv   []string `yaml:"argv" json:"argv,omitempty"`
}

// FromScalar reads the short form, a script.
func (c *Command) FromScalar(s string) error { c.Script = s; return nil }

// FromList reads the short form, a program and its arguments.
func (c *Command) FromList(l []string) error { c.Argv = l; return nil }

func (c *Command) String() string {
	if c.Script != "" {
		first, _, _ := strings.Cut(strings.TrimSpace(c.Script), "\n")
		return "command " + first
	}
	return "command " + strings.Join(c.Argv, " ")
}

// Validate implements [Assertion].
func (c *Command) Validate(o recipes.Options) recipes.Problems {
	if (c.Script == "") == (len(c.Argv) == 0) {
		return recipes.Problems{o.Problem("", "want either a script or a list of a program and its arguments")}
	}
	return nil
}

// Check implements [Assertion].
func (c *Command) Check(ctx context.Context, g Guest) error {
	var out lastOutput
	err := g.Exec(ctx, agent.Command{Argv: c.Argv, Script: c.Script, Timeout: commandTime}, false, out.add)
	var exit *agent.ExitError
	if errors.As(err, &exit) {
		detail := exit.Error()
		if said := lastLines(string(out), 5); len(said) > 0 {
			detail += ": " + strings.Join(said, "; ")
		}
		return unmet(detail)
	}
	return err
}
