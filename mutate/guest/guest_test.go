package guest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/agent"
)

func TestExitError(t *testing.T) {
	for _, tc := range []struct {
		name    string
		command agent.Command
		status  agent.ExitStatus
		want    string
		code    int
	}{
		{"success", agent.Command{Argv: []string{"true"}}, agent.ExitStatus{}, "", 0},
		{"status", agent.Command{Argv: []string{"apt-get", "install"}}, agent.ExitStatus{Code: 100},
			"apt-get: exit status 100", 100},
		{"script", agent.Command{Script: "x"}, agent.ExitStatus{Code: 3}, "script: exit status 3", 3},
		{"signal", agent.Command{Script: "x"}, agent.ExitStatus{Code: -1, Signal: "SIGKILL"},
			"script: killed by SIGKILL", -1},
		{"timeout", agent.Command{Script: "x", Timeout: 5 * time.Second},
			agent.ExitStatus{Code: -1, Signal: "SIGTERM", TimedOut: true}, "script: still running after 5s", -1},
		// A program may end well when it is asked to; the time was up all the same.
		{"timeout, then success", agent.Command{Script: "x", Timeout: time.Minute}, agent.ExitStatus{TimedOut: true},
			"script: still running after 1m0s", -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := exitError(tc.command, &tc.status)
			if tc.want == "" {
				if err != nil {
					t.Errorf("exitError = %v", err)
				}
				return
			}
			var exit *agent.ExitError
			if !errors.As(err, &exit) || err.Error() != tc.want || exit.Code != tc.code {
				t.Errorf("exitError = %v (%+v), want %s, %d", err, exit, tc.want, tc.code)
			}
		})
	}
}

func TestReplyError(t *testing.T) {
	if err := replyError(agent.Reply{}); err != nil {
		t.Error(err)
	}
	err := replyError(agent.Reply{Error: "open /x: no such file or directory", Errno: syscall.ENOENT})
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != "open /x: no such file or directory" {
		t.Errorf("replyError = %v", err)
	}
	if err := replyError(agent.Reply{Error: "text"}); errors.Is(err, fs.ErrNotExist) || err.Error() != "text" {
		t.Errorf("replyError = %v", err)
	}
}

// TestDataFrames: what is longer than a frame goes as several.
func TestDataFrames(t *testing.T) {
	var b bytes.Buffer
	sent := bytes.Repeat([]byte("0123456"), agent.MaxFrame/3)
	if n, err := (frames{&b}).Write(sent); n != len(sent) || err != nil {
		t.Fatalf("Write = %d, %v", n, err)
	}
	var got []byte
	for {
		kind, payload, err := agent.ReadFrame(&b)
		if err == io.EOF {
			break
		}
		if err != nil || kind != agent.Data {
			t.Fatalf("frame %q, %v", kind, err)
		}
		got = append(got, payload...)
	}
	if !bytes.Equal(got, sent) {
		t.Error("other bytes arrive")
	}
}

func TestTail(t *testing.T) {
	l := newTail()
	w, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		fmt.Fprintf(w, "  line %d\n", i)
	}
	w.Close()
	if got := l.text(); !strings.HasPrefix(got, "line 12; ") || !strings.HasSuffix(got, "; line 19") {
		t.Errorf("text() = %q, want the last eight lines", got)
	}
	l.close()
	if err := (&LostError{Log: "x"}).Error(); err != "systemd-nspawn: x" {
		t.Errorf("LostError: %s", err)
	}
}
