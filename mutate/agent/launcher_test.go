package agent

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestIdentityMap: ids keep their numbers, however the guest has them mapped.
func TestIdentityMap(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []syscall.SysProcIDMap // nil if it is refused
	}{
		{"         0  524288      65536\n", []syscall.SysProcIDMap{{Size: 65536}}},
		{"0 524288 65536\n2147483646 0 1\n", []syscall.SysProcIDMap{
			{Size: 65536}, {ContainerID: 2147483646, HostID: 2147483646, Size: 1},
		}},
		{"0 0 4294967295\n", []syscall.SysProcIDMap{{Size: 4294967295}}},
		{"0 0\n", nil},
		{"0 0 many\n", nil},
		{"x 0 1\n", nil},
	} {
		file := filepath.Join(t.TempDir(), "map")
		put(t, file, tc.text)
		got, err := identityMap(file)
		if diff := cmp.Diff(tc.want, got); diff != "" && tc.want != nil || (err == nil) != (tc.want != nil) {
			t.Errorf("identityMap of %q: %v\n%s", tc.text, err, diff)
		}
	}
}

// TestMessages: files arrive with what they were sent with, and an end is told
// from a message.
func TestMessages(t *testing.T) {
	a, b, err := socketPair("test")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	file := filepath.Join(t.TempDir(), "file")
	put(t, file, "text")
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := sendMessage(a, launch{Network: true}, f, f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	a.Close()
	var got launch
	files, err := receiveMessage(b, &got)
	if err != nil || !got.Network || len(files) != 2 {
		t.Fatalf("receiveMessage: %v, %+v and %d files", err, got, len(files))
	}
	defer closeAll(files)
	text := make([]byte, 10)
	if n, err := files[1].Read(text); err != nil || string(text[:n]) != "text" {
		t.Errorf("the file holds %q, %v", text[:n], err)
	}
	if _, err := receiveMessage(b, &got); err == nil {
		t.Error("an end of the messages is no error")
	}
}

// TestReport: what a command makes its init say is text, and no more.
func TestReport(t *testing.T) {
	for _, tc := range []struct{ said, status, err string }{
		{`{"Status":{"Code":3}}`, "3", ""},
		{`{"Status":{"Code":-1,"Signal":"SIGKILL"}}`, "-1 SIGKILL", ""},
		{`{"Status":{"Code":0,"Signal":"\u001b[2J","TimedOut":true}}`, "0 [2J", ""},
		{`{"Error":"no \u001b]0;x\u0007","Errno":2}`, "", "no ]0;x"},
		{`{"Err`, "", ""}, {"", "", ""}, {`[1]`, "", ""},
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.WriteString(tc.said)
		w.Close()
		status, err := readReport(r)
		r.Close()
		got := ""
		if status != nil {
			got = strings.TrimSpace(strings.Join([]string{strconv.Itoa(status.Code), status.Signal}, " "))
			if status.TimedOut {
				got += " timed out"
			}
		}
		said := ""
		if err != nil {
			said = err.Error()
		}
		if got != tc.status || said != tc.err {
			t.Errorf("readReport of %s: %q, %q, want %q, %q", tc.said, got, said, tc.status, tc.err)
		}
	}
}
