package mutate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fork"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/recipes"
)

// plan is what an apply has to do: the chain from the base to the image, and
// how far it exists.
type plan struct {
	recipe *recipes.Recipe
	base   *record.Base
	source *step.Source
	growth fork.Growth  // of its disk
	layout *disk.Layout // what is in it then
	// commits says that what the steps change becomes a new deployment of ostree.
	commits bool
	// prepare is the first layer of every chain: the base as steps find it. It is no
	// step of the recipe.
	prepare link
	bootc   *bootcLink // the container image that the system becomes before any step, nil if none
	steps   []stepLink
	reused  int  // how many of steps are layers already
	ready   bool // prepare is one
}

// bootcLink is the layer that is made of a container image.
type bootcLink struct {
	link
	container *container
	ready     bool // it is a layer
	anew      bool // it is made even if it is one
}

// ground is the layer that the first step starts from.
func (p *plan) ground() *link {
	if p.bootc != nil {
		return &p.bootc.link
	}
	return &p.prepare
}

// hasGround says whether that is there.
func (p *plan) hasGround() bool { return p.ready && (p.bootc == nil || p.bootc.ready) }

// link is one layer of the chain.
type link struct {
	key      record.Key
	material record.Material
	record   record.Layer // if it exists
}

// stepLink is a layer that a step of the recipe makes.
type stepLink struct {
	link
	spec    recipes.Step
	decoded step.Decoded
	hidden  []string // what was told of it now: see [record.Layer]
}

// title is how people know the step.
func (l *stepLink) title() string {
	if l.spec.Name != "" {
		return l.spec.Name
	}
	return l.spec.Kind
}

// last is the key of the whole chain.
func (p *plan) last() record.Key {
	if n := len(p.steps); n > 0 {
		return p.steps[n-1].key
	}
	return p.ground().key
}

// plan computes the keys and finds the longest prefix of layers that exist.
func (e *Engine) plan(
	ctx context.Context, r *recipes.Recipe, base *record.Base, c *container, steps []step.Decoded, src *step.Source,
	o ApplyOptions,
) (*plan, error) {
	if err := checkTargets(&base.Layout, r.Steps, steps); err != nil {
		return nil, err
	}
	if err := checkPlainOnly(&base.Layout, r.Steps, steps); err != nil {
		return nil, err
	}
	if err := checkIdentity(r, &base.Layout); err != nil {
		return nil, err
	}
	if err := checkOstree(r, &base.Layout); err != nil {
		return nil, err
	}
	p := &plan{recipe: r, base: base, source: src, commits: r.Ostree.Mode == recipes.OstreeCommit}
	if c != nil {
		p.bootc = &bootcLink{container: c}
	}
	var err error
	if p.growth, p.layout, err = e.growth(r, base); err != nil {
		return nil, err
	}
	if err := p.chain(ctx, steps); err != nil {
		return nil, err
	}
	return p, e.longestPrefix(p, o)
}

// announce tells of every step whether it is reused, or why not.
func (e *Engine) announce(p *plan, o ApplyOptions) error {
	for i := range p.steps {
		l := &p.steps[i]
		ev := Event{
			Type: EventPlan, Recipe: p.recipe.Name, Step: i + 1, Steps: len(p.steps),
			Name: l.title(), Kind: l.spec.Kind, Reused: i < p.reused,
		}
		if !ev.Reused {
			var err error
			if ev.Reason, err = e.reason(p, i, o); err != nil {
				return err
			}
		}
		e.Events(ev)
		if ev.Reused && l.spec.Hidden != recipes.HiddenAllow {
			for _, text := range l.record.Hidden {
				e.note(fmt.Sprintf("step %s: %s", l.title(), text))
			}
		}
	}
	return nil
}

// chain computes the key of every layer. It is a pure function of the base's
// digest, the recipe and the files beside it. How much larger the disk is to be counts
// as what it comes to, in whatever way the recipe says it.
func (p *plan) chain(ctx context.Context, steps []step.Decoded) (err error) {
	p.prepare.material = record.Material{Parent: record.Key(p.base.Digest), Kind: "prepare", Version: disk.MountsVersion}
	if is := p.prepares(); is != (prepared{}) {
		if p.prepare.material.Options, err = json.Marshal(is); err != nil {
			return err
		}
	}
	if p.prepare.key, err = p.prepare.material.Key(); err != nil {
		return err
	}
	if p.bootc != nil {
		if p.bootc.material, err = p.bootc.container.material(p.prepare.key, p.recipe.Bootc.Keep); err != nil {
			return err
		}
		if p.bootc.key, err = p.bootc.material.Key(); err != nil {
			return err
		}
	}
	parent := p.ground().key
	var problems recipes.Problems
	for i, d := range steps {
		l := stepLink{spec: p.recipe.Steps[i], decoded: d}
		if l.material, err = material(ctx, parent, l.spec, d, p.source); err != nil {
			if !isInputError(err) {
				return err
			}
			problems = append(problems, inputProblem(l.spec, err))
			continue
		}
		if l.key, err = l.material.Key(); err != nil {
			return err
		}
		parent = l.key
		p.steps = append(p.steps, l)
	}
	if len(problems) > 0 {
		return problems
	}
	return nil
}

// isInputError tells an unreadable file beside the recipe, which its author
// can mend, from all else.
func isInputError(err error) bool {
	var pe *fs.PathError
	return errors.As(err, &pe) || errors.Is(err, step.ErrNotAFile)
}

func material(
	ctx context.Context, parent record.Key, s recipes.Step, d step.Decoded, src *step.Source,
) (record.Material, error) {
	m := record.Material{
		Parent: parent, Kind: d.Kind.Name, Version: d.Kind.Version, Env: maps.Clone(s.Env), Network: usesNetwork(s, d),
		Boot: step.Boots(d.Value),
	}
	var err error
	if m.Options, err = json.Marshal(d.Value); err != nil {
		return m, fmt.Errorf("hash the options of a %s step: %w", s.Kind, err)
	}
	if in, ok := d.Value.(step.Inputter); ok {
		m.Inputs, err = src.Digest(ctx, in.Inputs())
	}
	return m, err
}

// usesNetwork is what the recipe says, or else what the step says itself.
func usesNetwork(s recipes.Step, d step.Decoded) bool {
	if s.Network != nil {
		return *s.Network
	}
	n, ok := d.Value.(step.Networker)
	return ok && n.Network()
}

// claim takes a lock on every layer that is missing, so that no two applies make
// the same one at once: the second finds it made when it gets the lock. Locks are
// taken in the order of the chain, and chains that share a layer share all before
// it, so no two wait for each other.
func (e *Engine) claim(ctx context.Context, p *plan, o ApplyOptions) (unlock func(), err error) {
	waited := false
	for {
		from := p.reused
		if unlock, err = e.lockLayers(ctx, p.steps[from:], &waited); err != nil || from == len(p.steps) {
			return unlock, err
		}
		// Others may have made what was missing before the locks were had, and
		// making it again would orphan what they built on it.
		if err := e.longestPrefix(p, o); err != nil {
			unlock()
			return nil, err
		}
		if p.reused >= from {
			return unlock, nil
		}
		unlock() // a layer before these was refreshed: its lock comes before theirs
	}
}

// lockLayers takes the locks of layers, and says so once if that means to wait.
func (e *Engine) lockLayers(ctx context.Context, layers []stepLink, waited *bool) (unlock func(), err error) {
	var held []func()
	unlock = func() {
		for _, u := range held {
			u()
		}
	}
	for _, l := range layers {
		name := "layer-" + string(l.key)
		u, ok, err := e.Store.TryLock(name)
		if err == nil && !ok {
			if !*waited {
				e.note("another imgmut makes the same; waiting for it")
			}
			*waited = true
			u, err = e.Store.Lock(ctx, name)
		}
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, u)
	}
	return unlock, nil
}
