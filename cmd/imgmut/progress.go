package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate"
	"github.com/imgmut/imgmut/mutate/printable"
)

// renderer shows events to people or programs.
type renderer interface {
	event(e mutate.Event)
	// showsOutput says whether the output of steps has been shown already, so
	// that a failure need not repeat it.
	showsOutput() bool
	// settle leaves the screen as it should stay; more may come.
	settle()
	// close settles for good. It may be called twice.
	close()
}

// newRenderer makes the renderer of a mode. With several, lines say which image
// they are about.
func newRenderer(mode string, w io.Writer, several bool) (renderer, error) {
	f, isFile := w.(*os.File)
	tty := isFile && isTerminal(f)
	switch mode {
	case "auto":
		if tty && os.Getenv("TERM") != "dumb" {
			return newTerminal(f, several), nil
		}
		return &plain{w: w, several: several, pace: newPace(5 * time.Second)}, nil
	case "tty":
		if !isFile {
			return nil, fmt.Errorf("--progress tty: standard error is no terminal")
		}
		return newTerminal(f, several), nil
	case "plain":
		return &plain{w: w, several: several, pace: newPace(5 * time.Second)}, nil
	case "json":
		return &jsonLines{w: w, pace: newPace(time.Second)}, nil
	case "quiet":
		return quiet{}, nil
	}
	return nil, fmt.Errorf("--progress %s: want auto, tty, plain, json or quiet", mode)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// quiet shows nothing; an error is still printed at the end.
type quiet struct{}

func (quiet) event(mutate.Event) {}
func (quiet) showsOutput() bool  { return false }
func (quiet) settle()            {}
func (quiet) close()             {}

// pace lets through one of many: of how far a long operation is, everything
// that is written to a log stays there.
type pace struct {
	every time.Duration
	last  map[string]time.Time // when something was let through, by operation
}

func newPace(every time.Duration) pace { return pace{every, map[string]time.Time{}} }

func (p *pace) ready(operation string, now time.Time) bool {
	if last, ok := p.last[operation]; ok && now.Sub(last) < p.every {
		return false
	}
	p.last[operation] = now
	return true
}

// jsonLines writes one event a line.
type jsonLines struct {
	mu   sync.Mutex
	w    io.Writer
	pace pace
}

func (j *jsonLines) event(e mutate.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := time.Now()
	if e.Type == mutate.EventProgress && !j.pace.ready(e.Text, now) {
		return
	}
	b, err := json.Marshal(struct {
		Time time.Time `json:"time"`
		mutate.Event
	}{now.UTC(), e})
	if err == nil {
		fmt.Fprintf(j.w, "%s\n", b)
	}
}

func (*jsonLines) showsOutput() bool { return true }
func (*jsonLines) settle()           {}
func (*jsonLines) close()            {}

// plain writes prefixed lines, for logs.
type plain struct {
	mu      sync.Mutex
	w       io.Writer
	several bool
	pace    pace
	said    time.Time // when the last line was written that says what is done
}

func (p *plain) event(e mutate.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	switch e.Type {
	case mutate.EventPlan:
		p.line(e, "[%d/%d] %s: %s", e.Step, e.Steps, stepTitle(e), fate(e))
	case mutate.EventStart:
		p.line(e, "[%d/%d] %s: running", e.Step, e.Steps, stepTitle(e))
	case mutate.EventOutput:
		p.line(e, "%s | %s", e.Name, e.Text)
	case mutate.EventDone:
		p.line(e, "[%d/%d] %s: done in %s", e.Step, e.Steps, stepTitle(e), humanTime(e.Took))
	case mutate.EventFailed:
		p.line(e, "[%d/%d] %s: failed after %s", e.Step, e.Steps, stepTitle(e), humanTime(e.Took))
	case mutate.EventPhase, mutate.EventNote:
		p.line(e, "%s", e.Text)
		p.said = now
	case mutate.EventProgress:
		// What is over in a moment needs no line.
		if now.Sub(p.said) >= p.pace.every && p.pace.ready(e.Text, now) {
			p.line(e, "%s: %s of %s", e.Text, printable.Size(e.Done), printable.Size(e.Total))
		}
	}
}

func (p *plain) line(e mutate.Event, format string, args ...any) {
	if p.several && e.Recipe != "" {
		format, args = "%s: "+format, append([]any{e.Recipe}, args...)
	}
	fmt.Fprintln(p.w, printable.Text(fmt.Sprintf(format, args...)))
}

func (*plain) showsOutput() bool { return true }
func (*plain) settle()           {}
func (*plain) close()            {}

// stepTitle is a step's name, and its kind if that is something else.
func stepTitle(e mutate.Event) string {
	if e.Name != e.Kind && e.Kind != "" {
		return e.Name + " (" + e.Kind + ")"
	}
	return e.Name
}

// fate is what becomes of a step.
func fate(e mutate.Event) string {
	if e.Reused {
		return "reused"
	}
	return e.Reason
}

func humanTime(d time.Duration) string {
	if d < 100*time.Millisecond {
		return d.Round(time.Millisecond).String()
	}
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}
