package reflink

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Writer fills a file that is one hole, from any number of goroutines. Zeros stay
// holes: raw images that came through a download or a pipe hold gigabytes of written
// zeros.
//
// It has what is written go to the disk meanwhile. Without that a copy ends long
// before its data are written, and the fsync after it takes as long as the copy;
// that can be neither interrupted nor watched.
type Writer struct {
	f *os.File

	mu      sync.Mutex
	dirty   int64
	running chan error // the end of a sync, nil if none was begun
	err     error
}

// NewWriter makes the writer of a file.
func NewWriter(f *os.File) *Writer { return &Writer{f: f} }

// window is how much is written while what was written before goes to the disk.
const window = 32 << 20

// WriteAt is as of [io.WriterAt], but leaves zeros out.
func (w *Writer) WriteAt(b []byte, off int64) (int, error) {
	if err := writeSparse(w.f, b, off); err != nil {
		return 0, err
	}
	w.wrote(int64(len(b)))
	return len(b), nil
}

func (w *Writer) wrote(n int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dirty += n; w.dirty < window {
		return
	}
	w.dirty, w.err = 0, w.wait()
	w.running = make(chan error, 1)
	go func() { w.running <- unix.Fdatasync(int(w.f.Fd())) }()
}

// Wait waits for the sync that runs, and gives the first error of any. What was
// written last need not be on the disk.
func (w *Writer) Wait() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = w.wait()
	return w.err
}

func (w *Writer) wait() error {
	if w.running != nil {
		if err := <-w.running; err != nil && w.err == nil {
			w.err = fmt.Errorf("write out %s: %w", w.f.Name(), err)
		}
		w.running = nil
	}
	return w.err
}

// writeSparse writes b at off but leaves its blocks of zeros out.
func writeSparse(dst *os.File, b []byte, off int64) error {
	for part := range slices.Chunk(b, len(zeros)) {
		if !bytes.Equal(part, zeros[:len(part)]) {
			if _, err := dst.WriteAt(part, off); err != nil {
				return err
			}
		}
		off += int64(len(part))
	}
	return nil
}

// zeros is what a hole reads as, of the size of hole that is worth one.
var zeros [64 << 10]byte
