package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// slow is a host that takes its time for all that it is sent.
type slow struct{ bytes.Buffer }

func (s *slow) Write(b []byte) (int, error) {
	time.Sleep(10 * time.Millisecond)
	return s.Buffer.Write(b)
}

// TestOutputThatOthersHold: a command is over when its processes are, whoever
// else holds its output and its init's report, and all that it said arrives.
func TestOutputThatOthersHold(t *testing.T) {
	ours, theirs, err := socketPair("test")
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer theirs.Close()
	said := strings.Repeat("said ", 60_000) // some of it is still in the pipe at the end
	held := make(chan []*os.File, 1)
	go func() {
		var req launch
		files, err := receiveMessage(theirs, &req)
		held <- files
		if err == nil {
			_, err = files[1].WriteString(said)
		}
		if err = errors.Join(err, sendMessage(theirs, launched{Status: &ExitStatus{Code: 3}})); err != nil {
			t.Error(err)
		}
	}()
	var out slow
	s := server{out: &out, launcher: ours}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		status, err := s.runJob(t.Context(), job{}, launch{})
		if err != nil || status.Code != 3 {
			t.Errorf("runJob = %+v, %v", status, err)
		}
	}()
	files := <-held
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the command does not end while others hold its output")
	}
	closeAll(files)
	<-ended
	var got strings.Builder
	for {
		_, payload, err := ReadFrame(&out)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Write(payload)
	}
	if got.String() != said {
		t.Errorf("%d bytes arrived of %d", got.Len(), len(said))
	}
}

// TestPending: what is in a pipe is given whole, and nothing is waited for.
func TestPending(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 1, 70_000, 1 << 20} {
		if _, err := w.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(pending(r)); err != nil || len(b) != size {
			t.Errorf("%d bytes of %d, %v", len(b), size, err)
		}
	}
	reader := pending(r)
	if _, err := w.Write([]byte("later")); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(reader); err != nil || len(b) != 0 {
		t.Errorf("%q, %v: what is written later is not waited for", b, err)
	}
}

// TestReportFitsIntoAPipe: whatever a recipe names, nobody waits for an init that
// cannot say what is wrong with it.
func TestReportFitsIntoAPipe(t *testing.T) {
	const leastPipe = 1 << 16 // pipe(7)
	for _, char := range []string{"a", "\x01", "\xff", "\u2028"} {
		var r report
		r.fail(&os.PathError{Op: "fork/exec", Path: "/" + strings.Repeat(char, leastPipe), Err: unix.ENAMETOOLONG})
		b, err := json.Marshal(r)
		if err != nil || len(b) >= leastPipe || r.Errno != unix.ENAMETOOLONG {
			t.Errorf("%q: %d bytes, errno %v, %v", char, len(b), r.Errno, err)
		}
	}
}
