package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/printable"
)

// terminal repaints one block: a line for each step, and below the running
// one the last line it printed. Of several images each has a block of its own.
type terminal struct {
	mu      sync.Mutex
	f       *os.File
	several bool
	image   string // that the block is about
	steps   []stepLine
	phase   string
	since   time.Time
	painted int  // lines on the screen that are ours
	last    bool // nothing will be painted over: show all
	stop    chan struct{}
	done    sync.WaitGroup
}

type stepLine struct {
	title, state, output string
	started              time.Time // zero unless it runs
}

func newTerminal(f *os.File, several bool) *terminal {
	t := &terminal{f: f, several: several, stop: make(chan struct{})}
	t.done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-t.stop:
				return
			case <-tick.C:
				t.mu.Lock()
				t.paint()
				t.mu.Unlock()
			}
		}
	})
	return t
}

func (t *terminal) event(e mutate.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	step := func() *stepLine {
		for len(t.steps) < e.Step {
			t.steps = append(t.steps, stepLine{})
		}
		return &t.steps[e.Step-1]
	}
	if e.Recipe != t.image && e.Recipe != "" {
		t.flush() // the image before keeps its lines
		t.image = e.Recipe
	}
	switch e.Type {
	case mutate.EventPlan:
		*step() = stepLine{title: stepTitle(e), state: fate(e)}
	case mutate.EventStart:
		step().started, t.phase = time.Now(), ""
	case mutate.EventOutput:
		step().output = e.Text
	case mutate.EventDone:
		s := step()
		s.state, s.started, s.output = humanTime(e.Took), time.Time{}, ""
	case mutate.EventFailed:
		s := step()
		s.state, s.started, s.output = "failed after "+humanTime(e.Took), time.Time{}, ""
	case mutate.EventPhase:
		t.phase, t.since = e.Text, time.Now()
	case mutate.EventProgress:
		t.phase = fmt.Sprintf("%s: %s of %s", e.Text, printable.Size(e.Done), printable.Size(e.Total))
	case mutate.EventNote:
		t.clear()
		fmt.Fprintln(t.f, printable.Text(e.Text))
	case mutate.EventImage:
		t.phase = ""
	}
}

// paint writes the block over its last self. Lines are cut at the screen's
// edge: one that wraps would be two, and the block would climb.
func (t *terminal) paint() {
	if t.painted == 0 && len(t.steps) == 0 && t.phase == "" {
		return // what is below the cursor may be somebody else's
	}
	width, height := 80, 24
	if ws, err := unix.IoctlGetWinsize(int(t.f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 10 && ws.Row > 4 {
		width, height = int(ws.Col), int(ws.Row)
	}
	lines, running := t.lines(time.Now())
	// What has scrolled off the screen cannot be painted over, so only a part is
	// shown of more than it holds: the step that runs and those around it.
	if room := height - 2; len(lines) > room && !t.last {
		from := min(max(0, running-room/2), len(lines)-room)
		lines = lines[from : from+room]
	}
	var b strings.Builder
	if t.painted > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", t.painted)
	}
	for _, l := range lines {
		fmt.Fprintf(&b, "\r\x1b[K%s\n", cut(printable.Line(l), width-1))
	}
	b.WriteString("\x1b[J")
	t.painted = len(lines)
	t.f.WriteString(b.String())
}

// lines are the whole block; running is the one that should be seen.
func (t *terminal) lines(now time.Time) (lines []string, running int) {
	if t.several && t.image != "" && (len(t.steps) > 0 || t.phase != "") {
		lines = append(lines, t.image+":")
	}
	for i, s := range t.steps {
		mark, state := "  ", s.state
		if !s.started.IsZero() {
			mark, state, running = "> ", humanTime(now.Sub(s.started)), len(lines)
		}
		lines = append(lines, fmt.Sprintf("%s[%d/%d] %s  %s", mark, i+1, len(t.steps), s.title, state))
		if !s.started.IsZero() && s.output != "" {
			lines = append(lines, "      "+s.output)
		}
	}
	if t.phase != "" {
		running = len(lines)
		lines = append(lines, fmt.Sprintf("  %s  %s", t.phase, humanTime(now.Sub(t.since))))
	}
	return lines, running
}

// cut shortens a line to so many characters.
func cut(s string, width int) string {
	r := []rune(strings.ReplaceAll(s, "\t", "  "))
	return string(r[:min(len(r), width)])
}

func (t *terminal) clear() {
	if t.painted > 0 {
		fmt.Fprintf(t.f, "\x1b[%dA\r\x1b[J", t.painted)
		t.painted = 0
	}
}

// flush paints the block a last time and begins a new one below.
func (t *terminal) flush() {
	t.phase, t.last = "", true
	t.paint()
	t.steps, t.painted, t.last, t.image = nil, 0, false, ""
}

func (*terminal) showsOutput() bool { return false }

func (t *terminal) settle() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.steps {
		t.steps[i].started = time.Time{}
	}
	t.flush()
}

func (t *terminal) close() {
	select {
	case <-t.stop:
		return
	default:
	}
	close(t.stop)
	t.done.Wait()
	t.settle()
}
