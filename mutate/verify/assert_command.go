package verify

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/recipes"
)

var commandKind = recipes.Kind[Claim]{
	Name:    "command",
	Version: 1,
	Summary: "a script or program succeeds in the image, which is read-only",
	Example: `
- command: nginx -t
- command: [getent, passwd, www-data]
`,
	New: func() Claim { return new(Command) },
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

// Validate implements [Claim].
func (c *Command) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	v.Want((c.Script == "") != (len(c.Argv) == 0), "", "want either a script or a list of a program and its arguments")
	return v.Problems()
}

// Check implements [Claim].
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
