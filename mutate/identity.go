package mutate

import (
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fork"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/recipes"
)

// wanted is what a recipe asks of the identity of its image. It is no part of any
// key: images that differ in it alone share all layers.
func wanted(r *recipes.Recipe) fork.Wanted {
	return fork.Wanted{Filesystems: r.Identity.Filesystems, Labels: r.Identity.Labels, KeepTypes: r.Identity.KeepTypes}
}

// identity is that of the image that a plan makes.
func (p *plan) identity() record.Identity {
	return wanted(p.recipe).Derive(&p.base.Layout, p.last(), p.recipe.Name)
}

// checkIdentity refuses a recipe that asks for what its base cannot be given.
func checkIdentity(r *recipes.Recipe, l *disk.Layout) error {
	refused, err := wanted(r).Check(l, r.Name)
	if err != nil {
		return err
	}
	var problems recipes.Problems
	for _, no := range refused {
		problems = append(problems, r.IdentityProblem(no.Field, "%s", no.Why))
	}
	return recipes.Merge(problems)
}
