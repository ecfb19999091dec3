package step

import (
	"context"
	"regexp"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/recipes"
)

var systemdKind = Kind{
	Name:    "systemd",
	Version: 1,
	Summary: "enable, disable and mask units, set the default target",
	Example: `
- systemd:
    enable: [nginx.service]
    disable: [apt-daily.timer]
    mask: [getty@tty1.service]
    default-target: multi-user.target
`,
	New: func() Step { return new(Systemd) },
}

// Systemd changes which units start at boot, with the image's own systemctl,
// offline: no manager runs in the guest and none is needed.
type Systemd struct {
	Enable        []string `yaml:"enable" json:"enable,omitempty"`
	Disable       []string `yaml:"disable" json:"disable,omitempty"`
	Mask          []string `yaml:"mask" json:"mask,omitempty"`
	DefaultTarget string   `yaml:"default-target" json:"default-target,omitempty"`
}

// unitName is a full unit name (systemd.unit(5)); the ending says what is meant.
var unitName = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]+\.(service|socket|target|timer|mount|automount|path|slice|swap|device|scope)$`)

// Validate implements [Step].
func (s *Systemd) Validate(o recipes.Options) recipes.Problems {
	var ps recipes.Problems
	if len(s.Enable)+len(s.Disable)+len(s.Mask) == 0 && s.DefaultTarget == "" {
		ps = append(ps, o.Problem("", "nothing to do: want enable, disable, mask or default-target"))
	}
	check := func(field, name string) {
		if !unitName.MatchString(name) {
			ps = append(ps, o.Problem(field, "%q: want a full unit name such as nginx.service", name))
		}
	}
	for _, l := range []struct {
		field string
		units []string
	}{{"enable", s.Enable}, {"disable", s.Disable}, {"mask", s.Mask}} {
		for _, u := range l.units {
			check(l.field, u)
		}
	}
	if s.DefaultTarget != "" {
		check("default-target", s.DefaultTarget)
	}
	return ps
}

// Apply implements [Step].
func (s *Systemd) Apply(ctx context.Context, g Guest, _ *Source) error {
	for _, c := range []struct {
		verb  string
		units []string
	}{{"disable", s.Disable}, {"mask", s.Mask}, {"enable", s.Enable}} {
		if len(c.units) == 0 {
			continue
		}
		if err := g.Run(ctx, Systemctl(append([]string{c.verb, "--"}, c.units...)...)); err != nil {
			return err
		}
	}
	if s.DefaultTarget != "" {
		return g.Run(ctx, Systemctl("set-default", "--", s.DefaultTarget))
	}
	return nil
}

// Systemctl is the image's own, told that there is no manager to talk to
// (systemd's ENVIRONMENT.md, SYSTEMD_OFFLINE).
func Systemctl(args ...string) agent.Command {
	return agent.Command{Argv: append([]string{"systemctl"}, args...), Env: map[string]string{"SYSTEMD_OFFLINE": "1"}}
}
