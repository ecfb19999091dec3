package mutate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// locked tells which of the locks that an apply of p takes are held: those of
// its layers, in the order of the chain, and that of its image.
func (w *world) locked(t *testing.T, p *plan) []bool {
	t.Helper()
	var held []bool
	for _, name := range claimNames(p) {
		unlock, ok, err := w.Store.TryLock(name)
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			unlock()
		}
		held = append(held, !ok)
	}
	return held
}

func claimNames(p *plan) []string {
	var names []string
	for _, l := range p.steps {
		names = append(names, "layer-"+string(l.key))
	}
	return names
}

// TestClaimHoldsWhatIsMissing and nothing that is there, until it is let go.
func TestClaimHoldsWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	for _, tc := range []struct {
		o    ApplyOptions
		want []bool
	}{
		{ApplyOptions{}, []bool{true, true, true}}, // before anything is built
		{ApplyOptions{}, []bool{false, false, false}},
		{ApplyOptions{Refresh: []string{"copy"}}, []bool{false, true, true}},
		{ApplyOptions{NoCache: true}, []bool{true, true, true}},
	} {
		w.Engine = w.invocation()
		p := w.planned(t, threeSteps(), planBase, tc.o)
		unlock, err := w.claim(t.Context(), p, tc.o)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.locked(t, p); !slices.Equal(got, tc.want) {
			t.Errorf("%+v: locks held %t, want %t", tc.o, got, tc.want)
		}
		unlock()
		if got := w.locked(t, p); slices.Contains(got, true) {
			t.Errorf("%+v: locks held %t after they were given back", tc.o, got)
		}
		if notes := w.notes(); len(notes) > 0 {
			t.Errorf("said %q, and nobody had to wait", notes)
		}
		w.build(t, p)
	}
}

// TestClaimGoesByTheChain: whoever waits for a lock holds those before it and
// none after it, so no two applies wait for each other.
func TestClaimGoesByTheChain(t *testing.T) {
	for i := range 3 {
		t.Run(fmt.Sprintf("the other holds lock %d", i+1), func(t *testing.T) {
			w := newWorld(t)
			p := w.planned(t, threeSteps(), planBase, ApplyOptions{})
			release, err := w.Store.Lock(t.Context(), claimNames(p)[i])
			if err != nil {
				t.Fatal(err)
			}
			waiting := make(chan string, 9)
			w.Events = func(e Event) { waiting <- e.Text }
			ctx, cancel := context.WithCancel(t.Context())
			claimed := make(chan error, 1)
			go func() {
				unlock, err := w.claim(ctx, p, ApplyOptions{})
				if err == nil {
					unlock()
				}
				claimed <- err
			}()
			if text := <-waiting; !strings.Contains(text, "waiting") {
				t.Errorf("said %q to whoever waits", text)
			}
			want := []bool{false, false, false}
			for j := range i + 1 {
				want[j] = true
			}
			if got := w.locked(t, p); !slices.Equal(got, want) {
				t.Errorf("locks held %t, want %t", got, want)
			}
			cancel()
			if err := <-claimed; !errors.Is(err, context.Canceled) {
				t.Errorf("error %v of a claim that was given up", err)
			}
			release()
			if got := w.locked(t, p); slices.Contains(got, true) {
				t.Errorf("locks held %t after the claim was given up", got)
			}
		})
	}
}

// TestClaimFindsWhatTheOtherMade: the second of two equal applies runs nothing.
func TestClaimFindsWhatTheOtherMade(t *testing.T) {
	w := newWorld(t)
	p := w.planned(t, threeSteps(), planBase, ApplyOptions{})
	release, err := w.claim(t.Context(), w.planned(t, threeSteps(), planBase, ApplyOptions{}), ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	waiting := make(chan string, 9)
	w.Events = func(e Event) { waiting <- e.Text }
	claimed := make(chan error, 1)
	go func() {
		unlock, err := w.claim(t.Context(), p, ApplyOptions{})
		if err == nil {
			unlock()
		}
		claimed <- err
	}()
	<-waiting
	w.build(t, w.planned(t, threeSteps(), planBase, ApplyOptions{}))
	release()
	if err := <-claimed; err != nil {
		t.Fatal(err)
	}
	if p.reused != 3 || !p.ready {
		t.Errorf("%d of 3 layers are found, ready: %t", p.reused, p.ready)
	}
	if len(waiting) > 0 {
		t.Errorf("said once more: %q", <-waiting)
	}
}

// TestClaimLooksAgain: what is missing when an apply plans may be there when it
// has the locks, though it waited for nobody, and what was there may be new.
func TestClaimLooksAgain(t *testing.T) {
	for _, tc := range []struct {
		name      string
		before    int // layers that are there when it plans
		meanwhile ApplyOptions
		reused    int
		held      []bool
	}{
		{"the other made all", 0, ApplyOptions{}, 3, []bool{true, true, true}},
		{"the other refreshed what it found", 2, ApplyOptions{Refresh: []string{"copy"}}, 3, []bool{false, false, true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			if tc.before > 0 {
				p := w.planned(t, threeSteps(), planBase, ApplyOptions{})
				p.steps = p.steps[:tc.before]
				w.build(t, p)
			}
			p := w.planned(t, threeSteps(), planBase, ApplyOptions{})
			w.Engine = w.invocation()
			w.build(t, w.planned(t, threeSteps(), planBase, tc.meanwhile))
			unlock, err := w.claim(t.Context(), p, ApplyOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer unlock()
			if p.reused != tc.reused {
				t.Errorf("%d layers are reused, want %d", p.reused, tc.reused)
			}
			if got := w.locked(t, p); !slices.Equal(got, tc.held) {
				t.Errorf("locks held %t, want %t", got, tc.held)
			}
		})
	}
}

// TestClaimOfWhatIsMadeAgainMeanwhile takes the lock of a layer that was there
// before those of what comes after it.
func TestClaimOfWhatIsMadeAgainMeanwhile(t *testing.T) {
	w := newWorld(t)
	first := w.planned(t, threeSteps(), planBase, ApplyOptions{})
	first.steps = first.steps[:2]
	w.build(t, first)
	p := w.planned(t, threeSteps(), planBase, ApplyOptions{})
	w.Engine = w.invocation()
	again := w.planned(t, threeSteps(), planBase, ApplyOptions{NoCache: true})
	again.steps = again.steps[:1] // the rest failed
	w.build(t, again)
	unlock, err := w.claim(t.Context(), p, ApplyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if want := []bool{false, true, true}; p.reused != 1 || !slices.Equal(w.locked(t, p), want) {
		t.Errorf("%d layers are reused, locks held %t; want 1 and %t", p.reused, w.locked(t, p), want)
	}
}
