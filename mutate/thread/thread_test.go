package thread

import (
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwn: each call has a thread that is neither the main one nor comes back.
func TestOwn(t *testing.T) {
	seen := map[int]bool{os.Getpid(): true}
	for range 20 {
		var id int
		Own(func() { id = unix.Gettid() })
		if id == os.Getpid() {
			t.Fatal("called on the main thread")
		}
		if _, err := os.Stat("/proc/self/task/" + strconv.Itoa(id)); err == nil && seen[id] {
			t.Errorf("thread %d was used before", id)
		}
		seen[id] = true
	}
}
