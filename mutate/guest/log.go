package guest

import (
	"bufio"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// tail keeps the last lines that systemd-nspawn prints.
type tail struct {
	mu    sync.Mutex
	lines []string
	r     *os.File
	done  chan struct{}
}

func newTail() *tail { return &tail{done: make(chan struct{})} }

func (t *tail) open() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	t.r = r
	go func() {
		defer close(t.done)
		for s := bufio.NewScanner(r); s.Scan(); {
			t.mu.Lock()
			t.lines = append(t.lines, strings.TrimSpace(s.Text()))
			t.lines = t.lines[max(0, len(t.lines)-8):]
			t.mu.Unlock()
		}
		io.Copy(io.Discard, r) // a line too long for the scanner must not block its writer
	}()
	return w, nil
}

// text is what was said, once whoever says it is gone or has had its time.
func (t *tail) text() string {
	select {
	case <-t.done:
	case <-time.After(time.Second):
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(t.lines, "; ")
}

func (t *tail) close() {
	if t.r != nil {
		t.r.Close()
	}
}
