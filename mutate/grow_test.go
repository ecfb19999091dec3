package mutate

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// roomyBase is a base of 2 GiB without a partition table.
func (w *world) roomyBase(t *testing.T, layout disk.Layout) *record.Base {
	t.Helper()
	b := &record.Base{Digest: strings.Repeat("cd", 32), Size: 2 << 30, Imported: day, Layout: layout}
	w.publish(t, store.Bases, b.Digest, b)
	file := w.Catalog().BaseFile(b.Digest)
	if err := errors.Join(os.Chmod(file, 0o600), os.Truncate(file, b.Size)); err != nil {
		t.Fatal(err)
	}
	return b
}

var bareLayout = disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Size: 2 << 30, FS: "ext4", Role: disk.Root}}}

// TestKeysOfGrowth: what a size comes to decides, and not how it is said; a size that the
// base has already is none, and keys without a size are what they were.
func TestKeysOfGrowth(t *testing.T) {
	w := newWorld(t)
	base := w.roomyBase(t, bareLayout)
	keys := func(said string) (prepare, last record.Key) {
		p := w.planned(t, threeSteps().edit(t, "base: debian-12\n", "base: debian-12\n"+said), base, ApplyOptions{})
		return p.prepare.key, p.last()
	}
	plain, plainLast := keys("")
	material := record.Material{Parent: record.Key(base.Digest), Kind: "prepare", Version: disk.MountsVersion}
	if want, err := material.Key(); err != nil || plain != want {
		t.Errorf("without a size the key is %s, want %s (%v)", plain, want, err)
	}
	grown, grownLast := keys("disk: {size: 20G}\n")
	if grown == plain || grownLast == plainLast {
		t.Error("a larger disk has the layers of a smaller one")
	}
	for said, want := range map[string]record.Key{
		"disk: {size: 2G}\n": plain, "disk: {size: 2048M}\n": plain,
		"disk: {size: 20480M}\n": grown, "disk: {size: +18G}\n": grown, "disk: {size: 20G, grow: /}\n": grown,
	} {
		if got, _ := keys(said); got != want {
			t.Errorf("%s has key %s, want %s", said, got, want)
		}
	}
	if other, _ := keys("disk: {size: 21G}\n"); other == grown {
		t.Error("another size has the same layers")
	}
}

// TestGrowthRefused: before anything is made, with the place in the recipe and the mend.
func TestGrowthRefused(t *testing.T) {
	w := newWorld(t)
	base := w.roomyBase(t, bareLayout)
	for said, want := range map[string]string{
		"{size: 1G}":           "recipe.yaml:3:7: disk.size: the base has 2 GiB already, and a disk is never made smaller",
		"{size: 4G, grow: 2}":  "recipe.yaml:3:7: disk.grow: the base has no partition 2",
		"{size: 4G, grow: /x}": "recipe.yaml:3:7: disk.grow: the base mounts no partition of its own on /x",
	} {
		r, err := recipes.Parse("recipe.yaml", fmt.Appendf(nil, "version: 1\nname: a\ndisk: %s\nbase: b\n", said))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = w.growth(r, base)
		var problems recipes.Problems
		if !errors.As(err, &problems) || len(problems) != 1 || problems[0].Error() != want || problems[0].Hint == "" {
			t.Errorf("%s: %v, want %s and a hint", said, err, want)
		}
	}
}
