package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate"
)

// story is an apply of two images, as its events tell it.
func story(show func(mutate.Event)) {
	for _, name := range []string{"web", "db"} {
		for _, e := range []mutate.Event{
			{Type: mutate.EventPlan, Step: 1, Steps: 1, Name: "site", Kind: "copy", Reason: "new"},
			{Type: mutate.EventStart, Step: 1, Steps: 1, Name: "site", Kind: "copy"},
			{Type: mutate.EventOutput, Step: 1, Name: "site", Text: "hello"},
			{Type: mutate.EventDone, Step: 1, Steps: 1, Name: "site", Kind: "copy", Took: time.Second},
			{Type: mutate.EventPhase, Text: "verify"},
			{Type: mutate.EventImage, Name: name},
		} {
			e.Recipe = name
			show(e)
		}
	}
}

// TestPlainLines say of which image they are, if there are several.
func TestPlainLines(t *testing.T) {
	one := "[1/1] site (copy): new\n[1/1] site (copy): running\nsite | hello\n[1/1] site (copy): done in 1.0s\nverify\n"
	for several, want := range map[bool]string{
		false: one + one,
		true: "web: " + strings.ReplaceAll(strings.TrimSpace(one), "\n", "\nweb: ") +
			"\ndb: " + strings.ReplaceAll(strings.TrimSpace(one), "\n", "\ndb: ") + "\n",
	} {
		var b bytes.Buffer
		r, err := newRenderer("plain", &b, several)
		if err != nil {
			t.Fatal(err)
		}
		story(r.event)
		if b.String() != want {
			t.Errorf("several %t:\n%swant:\n%s", several, &b, want)
		}
	}
}

// TestNotesAreText: what an image or a record says is not obeyed.
func TestNotesAreText(t *testing.T) {
	var b bytes.Buffer
	r, err := newRenderer("plain", &b, false)
	if err != nil {
		t.Fatal(err)
	}
	r.event(mutate.Event{Type: mutate.EventNote, Text: "a\x1b[2J\u202eb"})
	if b.String() != "a[2Jb\n" {
		t.Errorf("it shows %q", &b)
	}
}

// TestEventLines have a time and the image, each.
func TestEventLines(t *testing.T) {
	var b bytes.Buffer
	r, err := newRenderer("json", &b, false)
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	story(r.event)
	n := 0
	for line := range strings.Lines(b.String()) {
		var e struct {
			Time          time.Time
			Event, Recipe string
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if want := []string{"web", "db"}[n/6]; e.Recipe != want || e.Event == "" {
			t.Errorf("%swant one of %s", line, want)
		}
		if e.Time.Before(started.Add(-time.Second)) || e.Time.After(time.Now()) {
			t.Errorf("%sit is of another time", line)
		}
		n++
	}
	if n != 12 {
		t.Errorf("%d lines, want 12", n)
	}
}

// TestPace: of a long operation few lines are written, in a log for people
// fewer than in one for programs, and what begins is told to programs at once.
func TestPace(t *testing.T) {
	start := time.Now()
	at := func(p pace) (told []time.Duration) {
		for d := time.Duration(0); d < 12*time.Second; d += 100 * time.Millisecond {
			for _, operation := range []string{"copy", "digest"} { // both go on
				if p.ready(operation, start.Add(d)) && operation == "copy" {
					told = append(told, d)
				}
			}
		}
		return told
	}
	if told := at(newPace(time.Second)); len(told) != 12 || told[0] != 0 || told[6] != 6*time.Second {
		t.Errorf("every second: %v", told)
	}
	if told := at(newPace(5 * time.Second)); len(told) != 3 || told[2] != 10*time.Second {
		t.Errorf("every five seconds: %v", told)
	}

	// Nothing is said of what is over in a moment.
	var b bytes.Buffer
	r, err := newRenderer("plain", &b, false)
	if err != nil {
		t.Fatal(err)
	}
	r.event(mutate.Event{Type: mutate.EventPhase, Text: "import x"})
	for i := range 10 {
		r.event(mutate.Event{Type: mutate.EventProgress, Text: "copy", Done: int64(i), Total: 10})
	}
	if b.String() != "import x\n" {
		t.Errorf("it says:\n%s", &b)
	}
}

// TestTerminalHasABlockForEachImage, which stays when the next begins, and
// nothing is painted over what was written since.
func TestTerminalHasABlockForEachImage(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "screen")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := newTerminal(file, true)
	story(func(e mutate.Event) {
		r.event(e)
		if e.Type == mutate.EventImage {
			r.settle()
			file.WriteString("path of " + e.Name + "\n")
		}
	})
	r.close()
	b, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"web:", "  [1/1] site (copy)  1.0s", "path of web", "db:", "  [1/1] site (copy)  1.0s", "path of db"}
	if got := screen(string(b)); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("on the screen is:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// screen plays what was written to a terminal: the few sequences that imgmut
// uses.
func screen(text string) []string {
	lines, row := []string{""}, 0
	for len(text) > 0 {
		var up int
		switch {
		case strings.HasPrefix(text, "\x1b[K"):
			lines[row], text = "", text[3:]
		case strings.HasPrefix(text, "\x1b[J"):
			lines, text = lines[:row+1], text[3:]
			lines[row] = ""
		case strings.HasPrefix(text, "\x1b["):
			n, rest, _ := strings.Cut(text[2:], "A")
			for _, c := range n {
				up = up*10 + int(c-'0')
			}
			row, text = max(0, row-up), rest
		case text[0] == '\n':
			if row, text = row+1, text[1:]; row == len(lines) {
				lines = append(lines, "")
			}
		case text[0] == '\r':
			text = text[1:]
		default:
			lines[row], text = lines[row]+text[:1], text[1:]
		}
	}
	return lines[:len(lines)-1]
}
