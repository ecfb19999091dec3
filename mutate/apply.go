package mutate

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/statcache"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/mutate/verify"
	"github.com/imgmut/imgmut/recipes"
)

// ApplyOptions are what a user may say about one apply.
type ApplyOptions struct {
	Output     string   // also write the image to this file
	NoCache    bool     // reuse no layer
	Refresh    []string // names or kinds of steps whose layers are not reused
	KeepFailed bool     // keep the fork in which a step failed, as it was before that step
	Replace    bool     // also the image of another recipe that has the same name
	// Epoch, if not zero, is the latest time that a file which a step copies or
	// writes may have in the image.
	Epoch time.Time
	// HostDone, if not nil, is called once the apply needs the host no more, most often
	// before the image is finished. It must not block.
	HostDone func()
}

// Applied is a finished image.
type Applied struct {
	record.Image
	Path      string // of the raw file
	Reused    int    // how many steps were layers already
	Steps     int
	Unchanged bool // the image was there already
}

// Apply makes the image of a recipe.
//
// Its errors have the classes of package fault. Those to take something out of
// are [recipes.Problems], [*StepError] and [*VerifyError].
func (e *Engine) Apply(ctx context.Context, r *recipes.Recipe, o ApplyOptions) (*Applied, error) {
	e = e.labelled(r.Name)
	steps, assertions, err := decode(r)
	if err != nil {
		return nil, err
	}
	release, err := e.hold(ctx, r, o)
	if err != nil {
		return nil, err
	}
	defer release()
	targets := e.targets(r, o)
	if len(assertions) > 0 || r.Register.Machined { // it is needed to the end
		o.HostDone = nil
	}
	if err := e.checkTargets(ctx, r.Name, targets); err != nil {
		return nil, err
	}
	p, unlock, err := e.claimedPlan(ctx, r, steps, o)
	if err != nil {
		return nil, err
	}
	defer unlock()
	image, unchanged, err := e.image(ctx, p, assertions, o)
	if err != nil {
		return nil, err
	}
	path, err := e.deliver(ctx, image, targets)
	if err != nil {
		return nil, err
	}
	e.Events(Event{Type: EventImage, Recipe: r.Name, Name: image.Name, Text: path})
	return &Applied{Image: *image, Path: path, Reused: p.reused, Steps: len(p.steps), Unchanged: unchanged}, nil
}

// hold keeps the store from being collected and the recipe's name from others,
// until the image is published and delivered. It refuses a name that is not the
// recipe's to take.
func (e *Engine) hold(ctx context.Context, r *recipes.Recipe, o ApplyOptions) (release func(), err error) {
	done, err := e.Store.Use(ctx)
	if err != nil {
		return nil, err
	}
	letGo, err := e.Catalog().HoldName(ctx, r.Name)
	if err != nil {
		done()
		return nil, err
	}
	release = func() { letGo(); done() }
	if err = e.Catalog().FreeForImage(r.Name); err == nil && !o.Replace {
		err = e.checkOwner(r)
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// claimedPlan finds the base, plans, takes the locks of what is missing, and
// tells what will be done. The plan reads files beside the recipe until unlock
// is called.
func (e *Engine) claimedPlan(
	ctx context.Context, r *recipes.Recipe, steps []step.Decoded, o ApplyOptions,
) (p *plan, unlock func(), err error) {
	base, err := e.Resolve(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	image, err := e.container(ctx, r, base, o)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.OpenRoot(r.Dir)
	if err != nil {
		return nil, nil, errors.Join(err, image.close())
	}
	letGo := func() {
		dir.Close()
		if err := image.close(); err != nil {
			e.note("clear up after the container image: " + err.Error())
		}
	}
	unlock = letGo
	if p, err = e.plan(ctx, r, base, image, steps, e.source(dir, o), o); err == nil {
		var held func()
		if held, err = e.claim(ctx, p, o); err == nil {
			unlock = func() { held(); letGo() }
			err = e.announce(p, o)
		}
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return p, unlock, nil
}

// image gives the image of a plan: the one that is there, or a new one.
func (e *Engine) image(
	ctx context.Context, p *plan, assertions []verify.Assertion, o ApplyOptions,
) (i *record.Image, unchanged bool, err error) {
	i, unchanged, err = e.existingImage(p, assertions)
	if err == nil && !unchanged {
		i, err = e.make(ctx, p, assertions, o)
	}
	return i, unchanged, err
}

// source is the directory of a recipe, with the sums of what has not changed in
// it since an earlier apply.
func (e *Engine) source(dir *os.Root, o ApplyOptions) *step.Source {
	cache := statcache.New(e.Store.Inputs())
	return &step.Source{Root: dir, Epoch: o.Epoch, Note: e.note, Cache: cache}
}

// make makes the image of a plan: the layers that are missing, then the image
// of the last.
func (e *Engine) make(
	ctx context.Context, p *plan, assertions []verify.Assertion, o ApplyOptions,
) (_ *record.Image, err error) {
	b, err := e.begin(ctx, p)
	if err != nil {
		return nil, err
	}
	image, err := b.build(ctx, assertions, o)
	if closeErr := b.close(); err != nil {
		return nil, errors.Join(err, closeErr)
	} else if closeErr != nil { // there is an image, so it is no failure
		e.note("clear up after the run: " + closeErr.Error())
	}
	return image, nil
}

// Check finds every problem of a recipe that can be found in itself.
func Check(r *recipes.Recipe) error {
	_, _, err := decode(r)
	return err
}

// CheckInputs finds the files that the steps of a recipe name and that are not
// beside it.
func CheckInputs(r *recipes.Recipe) error {
	dir, err := os.OpenRoot(r.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	var problems recipes.Problems
	for _, s := range r.Steps {
		d, wrong := step.Decode(s)
		in, ok := d.Value.(step.Inputter)
		if !ok || len(wrong) > 0 {
			continue
		}
		for _, from := range in.Inputs() {
			if _, err := dir.Stat(from.Path); err != nil {
				problems = append(problems, inputProblem(s, err))
			}
		}
	}
	return recipes.Merge(problems)
}

// inputProblem is a file beside the recipe that cannot be read.
func inputProblem(s recipes.Step, err error) recipes.Problem {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return s.Options.Problem("from", "%s: %v", pe.Path, pe.Err)
	}
	return s.Options.Problem("from", "%v", err)
}

// decode reads the options of every step and assertion and compares the names,
// so that a recipe's author hears of all problems at once.
func decode(r *recipes.Recipe) ([]step.Decoded, []verify.Assertion, error) {
	steps, stepErr := step.DecodeAll(r)
	assertions, assertErr := verify.Decode(r)
	var own recipes.Problems
	if r.Name != "" && r.Base.Name == r.Name {
		own = append(own, r.BaseProblem("an image cannot be its own base"))
	}
	return steps, assertions, recipes.Merge(stepErr, assertErr, own)
}

// Check refuses a step to refresh that none of the recipes has: it would
// silently do nothing.
func (o ApplyOptions) Check(all []*recipes.Recipe) error {
	for _, name := range o.Refresh {
		if name == record.ContainerKind && slices.ContainsFunc(all, func(r *recipes.Recipe) bool { return r.Bootc.Image.Transport != "" }) {
			continue
		}
		var files []string
		found := slices.ContainsFunc(all, func(r *recipes.Recipe) bool {
			files = append(files, r.File)
			return slices.ContainsFunc(r.Steps, func(s recipes.Step) bool { return named(s, name) })
		})
		if !found {
			return fault.New(fault.Usage, "", "refresh %q: no step of %s has that name or kind", name, strings.Join(files, ", "))
		}
	}
	return nil
}

// named says whether a step goes by that name or kind.
func named(s recipes.Step, name string) bool { return name != "" && (s.Name == name || s.Kind == name) }
