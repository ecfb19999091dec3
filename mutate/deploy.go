package mutate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/mutate/ostree"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/recipes"
)

// A system of ostree finds /usr read-only, and so do steps. In mode commit they find it as
// they find any other: what they change is laid over the deployment, and lies in the fork
// and in each layer. It is made a deployment once, of the last layer, in the fork that
// becomes the image. So layers are steps and nothing else, and a chain can go on from any.

// checkOstree refuses a recipe that asks of deployments what its base is none of, or
// cannot do.
func checkOstree(r *recipes.Recipe, l *disk.Layout) error {
	switch o := r.Ostree; {
	case o == recipes.Ostree{}:
		return nil
	case l.Deployed() == "":
		return recipes.Problems{r.OstreeProblem("leave it out: steps can change all of such a system",
			"the base is no deployment of ostree")}
	case o.Mode == recipes.OstreeCommit && len(l.Deployments) > 0:
		// Of a base that an older imgmut has imported it is found when the steps have run.
		return l.Deployments[0].Committable()
	}
	return nil
}

// prepared is what decides, beside its base, what steps find in the first layer.
type prepared struct {
	Size   int64  `json:"size,omitempty"`
	Slot   *int   `json:"slot,omitempty"`
	Ostree string `json:"ostree,omitempty"`  // its mode, if that is not the first
	Free   bool   `json:"sysroot,omitempty"` // /sysroot can be written to
}

// prepares gives what there is of that in a plan.
func (p *plan) prepares() (is prepared) {
	if p.growth.Size != 0 || p.growth.Slot != 0 {
		is.Size, is.Slot = p.growth.Size, &p.growth.Slot
	}
	if p.commits {
		is.Ostree = recipes.OstreeCommit
	}
	is.Free = slices.ContainsFunc(p.layout.Mounts, func(m disk.Mounted) bool {
		return m.Mountpoint == "/sysroot" && m.Sub == "." && !m.ReadOnly
	})
	return is
}

// deploy makes a deployment of what the steps have changed, in the file of the image.
func (b *build) deploy(ctx context.Context, f *os.File) (err error) {
	b.phase("deployment")
	i, err := disk.OpenKnown(ctx, f, b.lastLayout(), b.note)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	if err := b.settle(i); err != nil {
		return err
	}
	if err := i.FindRoles(); err != nil {
		return err
	}
	c := ostree.Change{Of: i.Layout.Deployed(), Keep: b.plan.recipe.Ostree.Keep, Time: b.plan.lastMade(), Note: b.note}
	return i.ChangeSysroot(nil, func(s *ostree.Sysroot) error {
		if len(b.plan.steps) == 0 { // what looks like something of theirs is the base's own
			return ostree.RemoveWork(s.Root)
		}
		return s.Finish(ctx, c)
	})
}

// lastLayout is what is in the last layer, as far as it is known.
func (b *build) lastLayout() *disk.Layout {
	if n := len(b.plan.steps); n > 0 && len(b.plan.steps[n-1].record.Mounts) > 0 {
		return b.plan.layout.With(b.plan.steps[n-1].record.Mounts)
	}
	return b.plan.layout
}

// ostreeOf is what is written down of how an image was made of deployments, nil if it was
// not asked for anything.
func ostreeOf(r *recipes.Recipe) *record.Ostree {
	if r.Ostree.Mode != recipes.OstreeCommit {
		return nil
	}
	return &record.Ostree{Mode: r.Ostree.Mode, Keep: r.Ostree.Keep}
}

// mendUsr is what can be done about a step that writes where nobody can.
const mendUsr = "with ostree: {mode: commit} in the recipe, what steps change in /usr becomes a new deployment; " +
	"in mode etc, which is the default, they change /etc and /var"

// writesUsr makes an error of a step one that says where it wrote, if it was where a
// deployment is read-only. tail is what the step printed last.
func (b *build) writesUsr(g *guest.Guest, err error, tail []string) error {
	l := b.guests.layout
	if err == nil || l.Deployed() == "" || b.plan.commits {
		return err
	}
	var failed *agent.GuestError
	if errors.As(err, &failed) && failed.Errno == syscall.EROFS {
		tail = append(slices.Clone(tail), err.Error())
	}
	for _, line := range slices.Backward(tail) {
		if !readOnly().MatchString(line) {
			continue
		}
		names := pathIn().FindAllString(line, -1)
		for _, name := range names {
			if l.Unwritable(disk.TreeAt(g.Root()), name) {
				return fault.New(fault.Step, mendUsr, "%w: %s is read-only in a deployment of ostree in mode etc: mode commit can change it", err, name)
			}
		}
		if len(names) > 0 {
			continue
		}
		return fault.New(fault.Step, mendUsr, "%w: /usr is read-only in a deployment of ostree in mode etc: mode commit can change it", err)
	}
	return err
}

// pathIn is a path in what a program prints.
var pathIn = lazyregexp.New(`/[^\s:;,'"‘’“”` + "`" + `()<>|]+`)

// needOstree refuses to begin where the machine lacks what deployments take: that would else
// be found when the base is prepared, or even when the steps have run.
func needOstree(p *plan) error {
	place := ""
	switch {
	case p.bootc != nil && !p.bootc.ready:
		place = p.recipe.BootcPlace()
	case p.commits:
		place = p.recipe.BasePlace()
	default:
		return nil
	}
	if err := ostree.Need(); err != nil {
		return fmt.Errorf("%s: %w", place, err)
	}
	return nil
}
