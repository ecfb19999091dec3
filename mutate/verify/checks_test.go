package verify_test

import (
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/verify"
)

// TestChecksAreComplete: each check of the list has a name of its own and a
// version, and says something of a sound image.
func TestChecksAreComplete(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	i, err := disk.Open(t.Context(), open(t, fixtures.Image(t, "debian-12")), func(text string) { t.Error(text) })
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	names := map[string]bool{}
	for _, c := range verify.Checks() {
		if c.Name == "" || names[c.Name] || c.Version < 1 {
			t.Errorf("%q, version %d: it has no name of its own, or no version", c.Name, c.Version)
		}
		names[c.Name] = true
		found, err := c.Run(t.Context(), verify.Request{Image: i, Scratch: t.TempDir(),
			Base: &verify.Base{IDs: []string{"5173b296-a04e-4fc2-9365-4e90c71b2a05"}}})
		if err != nil || len(found) == 0 {
			t.Errorf("%s found %v, %v of a sound image", c.Name, found, err)
		}
		for _, f := range found {
			if !f.OK || f.Name == "" {
				t.Errorf("%s: %+v of a sound image", c.Name, f)
			}
		}
	}
}
