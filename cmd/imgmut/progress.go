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
)

// renderer shows events to people or programs.
type renderer interface {
	event(e mutate.Event)
	// showsOutput says whether the output of steps has been shown already, so
	// that a failure need not repeat it.
	showsOutput() bool
	// close leaves the screen as it should stay. It may be called twice.
	close()
}

func newRenderer(mode string, w io.Writer) (renderer, error) {
	f, isFile := w.(*os.File)
	tty := isFile && isTerminal(f)
	switch mode {
	case "auto":
		if tty && os.Getenv("TERM") != "dumb" {
			return newTerminal(f), nil
		}
		return &plain{w: w}, nil
	case "tty":
		if !isFile {
			return nil, fmt.Errorf("--progress tty: standard error is no terminal")
		}
		return newTerminal(f), nil
	case "plain":
		return &plain{w: w}, nil
	case "json":
		return &jsonLines{w: w}, nil
	case "quiet":
		return quiet{}, nil
	}
	return nil, fmt.Errorf("--progress %s: want auto, tty, plain, json or quiet", mode)
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// quiet shows notes only by failing to: an error still says all.
type quiet struct{}

func (quiet) event(mutate.Event) {}
func (quiet) showsOutput() bool  { return false }
func (quiet) close()             {}

// jsonLines writes one event a line.
type jsonLines struct {
	mu sync.Mutex
	w  io.Writer
}

func (j *jsonLines) event(e mutate.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if b, err := json.Marshal(e); err == nil {
		fmt.Fprintf(j.w, "%s\n", b)
	}
}

func (*jsonLines) showsOutput() bool { return true }
func (*jsonLines) close()            {}

// plain writes prefixed lines, for logs.
type plain struct {
	mu       sync.Mutex
	w        io.Writer
	progress time.Time // when the last progress line was written
}

func (p *plain) event(e mutate.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e.Type {
	case mutate.EventPlan:
		fmt.Fprintf(p.w, "[%d/%d] %s: %s\n", e.Step, e.Steps, stepTitle(e), fate(e))
	case mutate.EventStart:
		fmt.Fprintf(p.w, "[%d/%d] %s: running\n", e.Step, e.Steps, stepTitle(e))
	case mutate.EventOutput:
		fmt.Fprintf(p.w, "%s | %s\n", e.Name, e.Text)
	case mutate.EventDone:
		fmt.Fprintf(p.w, "[%d/%d] %s: done in %s\n", e.Step, e.Steps, stepTitle(e), humanTime(e.Took))
	case mutate.EventFailed:
		fmt.Fprintf(p.w, "[%d/%d] %s: failed after %s\n", e.Step, e.Steps, stepTitle(e), humanTime(e.Took))
	case mutate.EventPhase, mutate.EventNote:
		fmt.Fprintf(p.w, "%s\n", e.Text)
		p.progress = time.Now()
	case mutate.EventProgress:
		// Every line of it stays in a log, so few of them, and none of what is
		// over in a moment.
		if now := time.Now(); now.Sub(p.progress) > 2*time.Second && e.Done > 0 {
			p.progress = now
			fmt.Fprintf(p.w, "%s: %s of %s\n", e.Text, humanSize(e.Done), humanSize(e.Total))
		}
	}
}

func (*plain) showsOutput() bool { return true }
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
