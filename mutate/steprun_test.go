package mutate

import (
	"archive/tar"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/guest"
)

// TestStepTimeHoldsForAll: what a step asks of the guest ends with the step's
// time, also where the agent in the guest does not keep it.
func TestStepTimeHoldsForAll(t *testing.T) {
	for name, ask := range map[string]func(context.Context, *scopedGuest) error{
		"read": func(ctx context.Context, s *scopedGuest) error { _, err := s.ReadFile(ctx, "/file"); return err },
		"stat": func(ctx context.Context, s *scopedGuest) error { _, err := s.Stat(ctx, "/file"); return err },
		"put": func(ctx context.Context, s *scopedGuest) error {
			return s.Put(ctx, func(*tar.Writer) error { return nil })
		},
	} {
		t.Run(name, func(t *testing.T) {
			// A guest that was never started answers nothing.
			s := &scopedGuest{Guest: new(guest.Guest), timeout: time.Second, deadline: time.Now().Add(-time.Second)}
			if err := ask(t.Context(), s); err == nil || !strings.Contains(err.Error(), "still running after 1s") {
				t.Errorf("%v, want that the step's time is up", err)
			}
		})
	}
}
