// Package mutate makes images of recipes: it is the story of imgmut, from a
// recipe and a base to a finished image, and reads top to bottom in the file
// apply.go.
//
//	resolve.go   the base of a recipe
//	fetch.go     an image comes from the network
//	import.go    an image becomes a base of the store, named by its bytes
//	sums.go      what a file was promised to be
//	look.go      what is in a base
//	picture.go   what an import sees of an image, for people
//	plan.go      the chain of keys, and the locks of what is missing of it
//	grow.go      a disk larger than that of the base
//	container.go a disk's system becomes a container image
//	reuse.go     which layers are used again, and why the others are not
//	build.go     one apply at work, and what is kept of one that fails
//	layers.go    fork, guest, steps, a layer after each
//	commit.go    layers get their names behind the steps
//	guests.go    the guests of a run: one for the steps, one to verify in
//	steprun.go   the guest as one step sees it
//	lend.go      what a step gets beside, to work on how the image starts
//	full.go      a filesystem of the image that a step has filled
//	hidden.go    what steps leave where a mount will hide it
//	remount.go   what is lost to sight by a step that changes the mounts
//	sealed.go    files of volumes that no guest can see
//	route.go     what a step puts there
//	lines.go     a step's output as users see it
//	deploy.go    what steps change of a system of ostree becomes a deployment
//	identity.go  fork of the last layer, and an identity of its own
//	finish.go    verdict, record
//	targets.go   the image where others look for it
//	names.go     whose a name is
//	verify.go    images judged later
//	remove.go    images and bases removed by name
//	collect.go   what no image needs
//
// What they use has packages of its own below this one, because each has
// something else to guard against: foreign bytes (disk, gpt, refs), a kernel
// (reflink, mount), a crash or another process (store, catalog, lock), a guest
// (guest, agent), places that belong to others (deliver).
//
// An apply makes the image that the recipe asks for, or none. Bases are never
// written, layers and images are never changed once they have their name, and
// nothing has its final name before it is whole.
package mutate

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/imgmut/imgmut/mutate/catalog"
	"github.com/imgmut/imgmut/mutate/deliver"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// Host is what the engine needs of the machine it runs on. It is opened only
// when there is something to run.
type Host interface {
	guest.Host
	deliver.Host
	// Version is the major version of its systemd.
	Version() int
}

// Engine applies recipes to a store.
type Engine struct {
	Store *store.Store
	// Host opens the host the first time it is called, from any goroutine, and
	// gives the same one later. The engine does not close it.
	Host func(ctx context.Context) (Host, error)
	// Agent is the path of the static imgmut binary that is started in guests.
	Agent string
	// Version is imgmut's own, for records.
	Version string
	// Events is told what happens, from any goroutine. It must not block for long.
	Events func(Event)
	// Proxy says by which proxy a request goes that fetches an image, as in
	// [http.Transport]; nil is none.
	Proxy func(*http.Request) (*url.URL, error)
	// Now is the clock.
	Now func() time.Time

	made map[record.Key]time.Time // layers that this engine has made, and when
}

// Event is one thing that happened. Type says which fields count.
type Event struct {
	Type   EventType     `json:"event"`
	Recipe string        `json:"recipe,omitempty"` // name of the image, in all events of an apply
	Step   int           `json:"step,omitempty"`   // 1-based
	Steps  int           `json:"steps,omitempty"`  // how many there are
	Name   string        `json:"name,omitempty"`   // of the step
	Kind   string        `json:"kind,omitempty"`
	Reused bool          `json:"reused,omitempty"`
	Reason string        `json:"reason,omitempty"` // why it is not reused
	Text   string        `json:"text,omitempty"`   // a line of output, or what is being done
	Took   time.Duration `json:"took,omitempty"`   // nanoseconds
	Done   int64         `json:"done,omitempty"`   // bytes, of a long operation
	Total  int64         `json:"total,omitempty"`
}

// EventType says what an event is about.
type EventType string

// The types of events.
const (
	EventPlan     EventType = "plan"     // a step and whether it is reused; one for each, before any runs
	EventStart    EventType = "start"    // a step begins
	EventOutput   EventType = "output"   // it printed a line
	EventDone     EventType = "done"     // it ended well, layer and all
	EventFailed   EventType = "failed"   // it did not
	EventPhase    EventType = "phase"    // something else begins: Text
	EventProgress EventType = "progress" // of a phase over a second: Done of Total
	EventNote     EventType = "note"     // something the user should know: Text
	EventImage    EventType = "image"    // the image is finished: Name, Text is its path
)

// Catalog is what the store holds.
func (e *Engine) Catalog() catalog.Catalog { return catalog.Catalog{Store: e.Store, Note: e.note} }

// labelled is the engine for one recipe: its events say which that is.
func (e *Engine) labelled(recipe string) *Engine {
	if e.made == nil {
		e.made = map[record.Key]time.Time{}
	}
	c := *e
	c.Events = func(ev Event) {
		ev.Recipe = recipe
		e.Events(ev)
	}
	return &c
}

func (e *Engine) phase(text string) { e.Events(Event{Type: EventPhase, Text: text}) }
func (e *Engine) note(text string)  { e.Events(Event{Type: EventNote, Text: text}) }

// progress makes a function for long operations that reports some ten times a
// second.
func (e *Engine) progress(what string) func(done, total int64) {
	var last time.Time
	ch := make(chan struct{}, 1) // callers come from many goroutines
	return func(done, total int64) {
		select {
		case ch <- struct{}{}:
			defer func() { <-ch }()
		default:
			return
		}
		if now := time.Now(); now.Sub(last) > 100*time.Millisecond {
			last = now
			e.Events(Event{Type: EventProgress, Text: what, Done: done, Total: total})
		}
	}
}

// spaceFloor is the room that a step must find in the store, in bytes. Less
// than this and it is better to say so than to lose writes.
const spaceFloor = 64 << 20

// ErrNoSpace says that the store is too full.
var ErrNoSpace = fault.New(fault.Host, "make room with imgmut gc, or use a store on a larger disk with --store",
	"the store is too full: %w", syscall.ENOSPC)

// room is needSpace for those who ask when they know how much it is.
func (e *Engine) room(ctx context.Context) func(bytes int64) error {
	return func(bytes int64) error { return e.needSpace(ctx, bytes) }
}

// needSpace is [ErrNoSpace] if there is no room for that many bytes more.
func (e *Engine) needSpace(ctx context.Context, bytes int64) error {
	free, err := e.Store.Room(ctx, bytes+spaceFloor)
	if err == nil && free < bytes+spaceFloor {
		err = fmt.Errorf("%w: %d MiB are free in %s, %d MiB are needed",
			ErrNoSpace, free>>20, e.Store.Root(), (bytes+spaceFloor)>>20)
	}
	return err
}
