package step

import (
	"context"
	"slices"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/recipes"
)

var systemdKind = recipes.Kind[Step]{
	Name:    "systemd",
	Version: 2,
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
// offline: no manager runs in the guest and none is needed. A first boot leaves them
// so: see presetFile.
type Systemd struct {
	Enable        []string `yaml:"enable" json:"enable,omitempty"`
	Disable       []string `yaml:"disable" json:"disable,omitempty"`
	Mask          []string `yaml:"mask" json:"mask,omitempty"`
	DefaultTarget string   `yaml:"default-target" json:"default-target,omitempty"`
}

// Validate implements [Step].
func (s *Systemd) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	v.Want(len(s.Enable)+len(s.Disable)+len(s.Mask) > 0 || s.DefaultTarget != "", "",
		"nothing to do: want enable, disable, mask or default-target")
	v.CheckEach("enable", s.Enable, agent.CheckUnit)
	v.CheckEach("disable", s.Disable, agent.CheckUnit)
	v.CheckEach("mask", s.Mask, agent.CheckUnit)
	if s.DefaultTarget != "" {
		v.Check("default-target", agent.CheckUnit(s.DefaultTarget))
	}
	return v.Problems()
}

// Apply implements [Step].
func (s *Systemd) Apply(ctx context.Context, g Guest, src *Source) error {
	rules, err := s.presets(ctx, g) // before links go by which a unit has another name
	if err != nil {
		return err
	}
	for _, c := range []struct {
		verb  string
		units []string
	}{{"disable", s.Disable}, {"mask", s.Mask}, {"enable", s.Enable}} {
		if len(c.units) == 0 {
			continue
		}
		if err := g.Run(ctx, agent.Systemctl(append([]string{c.verb, "--"}, c.units...)...)); err != nil {
			return err
		}
	}
	if s.DefaultTarget != "" {
		if err := g.Run(ctx, agent.Systemctl("set-default", "--", s.DefaultTarget)); err != nil {
			return err
		}
	}
	if len(s.Enable)+len(s.Disable) == 0 && s.DefaultTarget == "" {
		return nil
	}
	return rules.write(ctx, g, src)
}

// presets are the rules of the image with those of the step.
func (s *Systemd) presets(ctx context.Context, g Guest) (presets, error) {
	rules, err := readPresets(ctx, g)
	if err != nil {
		return nil, err
	}
	for _, name := range s.Disable {
		units, err := withAlso(ctx, g, name)
		if err != nil {
			return nil, err
		}
		for _, unit := range units {
			rules.disable(unit)
		}
	}
	enabled := s.Enable
	if s.DefaultTarget != "" { // of a target that presets disable, all links to it go
		enabled = append(slices.Clone(enabled), s.DefaultTarget)
	}
	for _, name := range enabled {
		unit, _, err := realUnit(ctx, g, name)
		if err != nil {
			return nil, err
		}
		rules.enable(unit)
	}
	return rules, nil
}
