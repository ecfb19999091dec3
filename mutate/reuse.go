package mutate

import (
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/imgmut/imgmut/mutate/catalog"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/recipes"
)

// longestPrefix walks the chain until the first layer that is not there, is not
// to be used, or was built on an earlier build of its parent.
func (e *Engine) longestPrefix(p *plan, o ApplyOptions) (err error) {
	p.ready, p.reused = false, 0
	if p.bootc != nil {
		p.bootc.ready = false
	}
	for i := range p.steps {
		p.steps[i].record = record.Layer{}
	}
	if p.prepare.record, p.ready, err = e.Catalog().FindLayer(p.prepare.key); err != nil || !p.ready {
		return err
	}
	if p.bootc != nil {
		p.bootc.record, p.bootc.ready, err = e.Catalog().FindLayer(p.bootc.key)
		_, ours := e.made[p.bootc.key]
		p.bootc.anew = o.NoCache && !ours
		if p.bootc.ready = p.bootc.ready && !p.bootc.anew; err != nil || !p.bootc.ready {
			return err
		}
		p.layout = p.layout.With(p.bootc.record.Mounts)
	}
	made := p.ground().record.Made
	for i := range p.steps {
		l := &p.steps[i]
		var ok bool
		if l.record, ok, err = e.Catalog().FindLayer(l.key); err != nil || !ok {
			return err
		}
		// A refreshed layer keeps its key, so the time tells what was built on
		// the one before it.
		if e.stale(l, o) || !l.record.ParentMade.Equal(made) {
			return nil
		}
		made = l.record.Made
		p.reused = i + 1
	}
	return nil
}

// stale says that a layer is there but not to be used. One that this engine has
// made never is: recipes of one invocation share a step that is refreshed, or
// the second would orphan what the first has built on it. What another process
// makes meanwhile may have begun before the user asked, so it does not count.
func (e *Engine) stale(l *stepLink, o ApplyOptions) bool {
	if made, ok := e.made[l.key]; ok && made.Equal(l.record.Made) {
		return false
	}
	return o.unwanted(l.spec) != "" || l.hides() || l.spec.MaxAge > 0 && e.Now().Sub(l.record.Made) > l.spec.MaxAge
}

// hides says that a layer has what the step, as it is now, may not leave, or that nobody
// knows: it was made when the step said another thing about what will not be seen.
func (l *stepLink) hides() bool {
	return l.record.Unwatched && l.spec.Hidden != recipes.HiddenAllow ||
		len(l.record.Hidden) > 0 && l.spec.Hidden == recipes.HiddenError
}

// unwanted tells by what the user said that no layer of a step be used: the
// reason, or "".
func (o ApplyOptions) unwanted(s recipes.Step) string {
	switch {
	case o.NoCache:
		return "no cache"
	case slices.ContainsFunc(o.Refresh, func(name string) bool { return named(s, name) }):
		return "refresh"
	}
	return ""
}

// reason tells why step i runs.
func (e *Engine) reason(p *plan, i int, o ApplyOptions) (string, error) {
	l := &p.steps[i]
	if why := o.unwanted(l.spec); why != "" {
		return why, nil
	}
	switch {
	case i > p.reused:
		return fmt.Sprintf("follows step %d", p.reused+1), nil
	case l.record.Made.IsZero():
		w := p.wanted()
		return e.Catalog().Why(w, w.Ground+i)
	case l.hides():
		return "changed: hidden", nil
	case e.stale(l, o):
		return fmt.Sprintf("older than %s", age(l.spec.MaxAge)), nil
	}
	return "its parent was refreshed", nil
}

func age(d time.Duration) string {
	if d >= 24*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
	return d.String()
}

// wanted is the image that the plan makes, for comparison with the one there is.
func (p *plan) wanted() catalog.Wanted {
	w := catalog.Wanted{Image: p.recipe.Name, Base: p.recipe.Base.Name, Chain: []*record.Material{&p.prepare.material}}
	if w.Base == "" {
		w.Base = filepath.Base(p.recipe.Base.Path)
	}
	if p.bootc != nil {
		w.Chain = append(w.Chain, &p.bootc.material)
	}
	w.Ground = len(w.Chain)
	for i := range p.steps {
		w.Chain = append(w.Chain, &p.steps[i].material)
	}
	return w
}
