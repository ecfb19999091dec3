package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/fault"
)

// noise is what a file holds that is fetched.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func fetcher(t *testing.T) *Fetcher {
	t.Helper()
	return &Fetcher{Room: func(int64) error { return nil }, Progress: func(_, _ int64) {}, Note: func(text string) { t.Log(text) }}
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// served is what a server gives of a file: how is asked for each request, by number from
// 1 on, and may answer itself.
type served struct {
	file  []byte
	tag   string
	count atomic.Int32
	bytes atomic.Int64 // that were sent
	how   func(n int, w http.ResponseWriter, r *http.Request) (done bool)
}

func (s *served) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := int(s.count.Add(1))
	if s.how != nil && s.how(n, w, r) {
		return
	}
	w.Header().Set("ETag", s.tag)
	http.ServeContent(counting{w, s}, r, "", time.Time{}, bytes.NewReader(s.file))
}

type counting struct {
	http.ResponseWriter
	s *served
}

func (c counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.s.bytes.Add(int64(n))
	return n, err
}

// cut answers with the first bytes of a file, or of its end, and breaks off.
func cut(file []byte, tag string, most int) func(int, http.ResponseWriter, *http.Request) bool {
	return func(_ int, w http.ResponseWriter, r *http.Request) bool {
		from := 0
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		if len(file)-from <= most {
			return false
		}
		w.Header().Set("ETag", tag)
		w.Header().Set("Content-Length", fmt.Sprint(len(file)-from))
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(file)-1, len(file)))
			w.WriteHeader(http.StatusPartialContent)
		}
		w.Write(file[from : from+most])
		panic(http.ErrAbortHandler)
	}
}

// TestGet: whatever the network does, the file that was promised comes, or none.
func TestGet(t *testing.T) {
	const size = 3 << 20
	file, other := noise(1, size), noise(2, size)
	for _, tc := range []struct {
		name  string
		s     *served
		part  []byte // that is there already
		mark  string // of it, behind the address
		want  string // of the error
		class fault.Class
		least int64 // bytes that are fetched
		most  int64
	}{
		{name: "whole", s: &served{tag: `"1"`}, least: size, most: size},
		{name: "in pieces", s: &served{tag: `"1"`, how: cut(file, `"1"`, size/7)}, least: 1, most: size},
		{name: "in pieces, and nobody says of what", s: &served{how: func(n int, w http.ResponseWriter, r *http.Request) bool {
			return n < 3 && cut(file, "", size/2)(n, w, r)
		}}, least: size, most: size},
		{name: "busy at first", s: &served{tag: `"1"`, how: func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n < 3 {
				w.WriteHeader([]int{http.StatusServiceUnavailable, http.StatusTooManyRequests}[n-1])
			}
			return n < 3
		}}, least: size, most: size},
		{name: "goes on from an earlier time", s: &served{tag: `"1"`},
			part: file[:size/2], mark: `"1"`, least: size / 2, most: size / 2},
		{name: "was all there", s: &served{tag: `"1"`}, part: file, mark: `"1"`},
		{name: "more than all was there", s: &served{tag: `"1"`},
			part: append(bytes.Clone(file), "more"...), mark: `"1"`, least: size, most: size},
		{name: "has changed since", s: &served{tag: `"1"`}, part: other[:size/2], mark: `"0"`, least: size, most: size},
		{name: "the server says it is the same, and it is not", s: &served{tag: `"1"`}, part: other[:size/2], mark: `"1"`,
			least: size + size/2, most: size + size/2},
		{name: "a part of which nobody knows what it is of", s: &served{tag: `"1"`},
			part: file[:size/2], least: size, most: size},
		{name: "a weak tag", s: &served{tag: `W/"1"`}, part: other[:size/2], mark: `W/"1"`, least: size, most: size},
		{name: "changes meanwhile", s: &served{tag: `"2"`, how: func(n int, w http.ResponseWriter, r *http.Request) bool {
			return n == 1 && cut(other, `"1"`, size/2)(n, w, r)
		}}, least: size, most: size},
		{name: "knows nothing of parts", s: &served{tag: `"1"`, how: func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				return cut(file, `"1"`, size/2)(n, w, r)
			}
			r.Header.Del("Range")
			return false
		}}, least: size, most: size},
		{name: "another file", s: &served{file: other}, want: "its sha256 is " + sum(other), class: fault.Image, most: size},
		{name: "another part than asked for", s: &served{tag: `"1"`, how: func(n int, w http.ResponseWriter, r *http.Request) bool {
			if n == 1 {
				return cut(file, `"1"`, size/2)(n, w, r)
			}
			r.Header.Set("Range", "bytes=7-")
			return false
		}}, want: "was asked for all from byte 1572864", class: fault.Host, most: size},
		{name: "says less than it gives", s: &served{how: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Transfer-Encoding", "identity")
			w.Write(append(bytes.Clone(file), other...))
			return true
		}}, want: "its sha256 is", class: fault.Image, most: 0},
		{name: "is not there", s: &served{how: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusNotFound)
			return true
		}}, want: "404 Not Found", class: fault.NotFound},
		{name: "is not for everybody", s: &served{how: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusForbidden)
			return true
		}}, want: "403 Forbidden", class: fault.Host},
		{name: "leads round", s: &served{how: func(_ int, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
			return true
		}}, want: "it leads on and on", class: fault.Host},
		{name: "always says that there is no such part", s: &served{how: func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		}}, want: "416", class: fault.Host},
		{name: "always breaks off at once", s: &served{how: func(int, http.ResponseWriter, *http.Request) bool {
			panic(http.ErrAbortHandler)
		}}, want: "EOF", class: fault.Host},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if tc.s.file == nil {
				tc.s.file = file
			}
			server := httptest.NewServer(tc.s)
			defer server.Close()
			server.Config.ErrorLog = nil
			part, url := filepath.Join(t.TempDir(), "part"), server.URL+"/file"
			if tc.part != nil {
				write(t, part, tc.part)
			}
			if tc.mark != "" {
				write(t, part+".mark", []byte(url+"\n"+tc.mark))
			}
			err := fetcher(t).Get(t.Context(), File{URL: url, SHA256: sum(file)}, part)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || fault.Of(err) != tc.class {
					t.Errorf("Get = %v, of class %q, want %q of %q", err, fault.Of(err), tc.want, tc.class)
				}
			} else if got, readErr := os.ReadFile(part); err != nil || !bytes.Equal(got, file) {
				t.Errorf("Get = %v, %d bytes, %v", err, len(got), readErr)
			}
			if n := tc.s.bytes.Load(); n < tc.least || tc.most > 0 && n > tc.most+1<<20 && tc.want == "" {
				t.Errorf("%d bytes were sent, want %d to %d", n, tc.least, tc.most)
			}
		})
	}
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestGetInterrupted: what came stays, and the next run goes on with it.
func TestGetInterrupted(t *testing.T) {
	file, cause := noise(1, 2<<20), errors.New("the user pressed ^C")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := served{file: file, tag: `"1"`, how: func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n > 1 {
			return false
		}
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(file)))
		w.Write(file[:1<<20])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	}}
	server := httptest.NewServer(&s)
	defer server.Close()
	part := filepath.Join(t.TempDir(), "part")
	f := fetcher(t)
	f.Progress = func(done, total int64) {
		if done == 1<<20 && total == 2<<20 {
			cancel(cause)
		}
	}
	want := File{URL: server.URL, SHA256: sum(file)}
	if err := f.Get(ctx, want, part); !errors.Is(err, cause) {
		t.Fatalf("Get = %v, want the cause", err)
	}
	if err := fetcher(t).Get(t.Context(), want, part); err != nil {
		t.Fatal(err)
	}
	if n := s.bytes.Load(); n != 1<<20 {
		t.Errorf("%d bytes were sent after that, want the other half", n)
	}
}

// TestGetWithoutRoom: the room is asked for before anything is taken.
func TestGetWithoutRoom(t *testing.T) {
	server := httptest.NewServer(&served{file: noise(1, 1<<20)})
	defer server.Close()
	full := errors.New("full")
	f := fetcher(t)
	f.Room = func(n int64) error {
		if n != 1<<20 {
			t.Errorf("asked for %d bytes", n)
		}
		return full
	}
	part := filepath.Join(t.TempDir(), "part")
	if err := f.Get(t.Context(), File{URL: server.URL, SHA256: "x"}, part); !errors.Is(err, full) {
		t.Errorf("Get = %v", err)
	}
	if fi, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it took %v, %v", fi, err)
	}
}

// TestNoWayFromHTTPS: an address of https never leads to one of http.
func TestNoWayFromHTTPS(t *testing.T) {
	plain := httptest.NewServer(&served{file: []byte("x")})
	defer plain.Close()
	f := fetcher(t)
	via := []*http.Request{httptest.NewRequest(http.MethodGet, "https://x.org/a", nil)}
	to := httptest.NewRequest(http.MethodGet, plain.URL, nil)
	var never final
	if err := f.client().CheckRedirect(to, via); !errors.As(err, &never) {
		t.Errorf("from https to http: %v", err)
	}
	if err := f.client().CheckRedirect(via[0], via); err != nil {
		t.Errorf("from https to https: %v", err)
	}
}

// TestShown: what may be a secret in a URL is shown to nobody.
func TestShown(t *testing.T) {
	for address, want := range map[string]string{
		"https://me:secret@x.org/a/b.raw?token=secret#x": "https://x.org/a/b.raw",
		"https://x.org/a b.raw":                          "https://x.org/a%20b.raw",
		"oci:x.org/a:b":                                  "oci:x.org/a:b",
	} {
		if got := Shown(address); got != want {
			t.Errorf("%s is shown as %s, want %s", address, got, want)
		}
	}
}

// TestEndlessBody: what has no end is given up when there is no room for more, and none of
// it is kept.
func TestEndlessBody(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for b := make([]byte, 1<<20); r.Context().Err() == nil; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	full, f := errors.New("full"), fetcher(t)
	f.Room = func(n int64) error {
		if n > 0 {
			return full
		}
		return nil
	}
	part := filepath.Join(t.TempDir(), "part")
	if err := f.Get(t.Context(), File{URL: server.URL, SHA256: "x"}, part); !errors.Is(err, full) {
		t.Errorf("Get = %v", err)
	}
	if _, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("some of it is kept: %v", err)
	}
}

// TestSHA512: that sum is enough.
func TestSHA512(t *testing.T) {
	file := noise(1, 1000)
	server := httptest.NewServer(&served{file: file})
	defer server.Close()
	of := sha512.Sum512(file)
	part := filepath.Join(t.TempDir(), "part")
	if err := fetcher(t).Get(t.Context(), File{URL: server.URL, SHA512: hex.EncodeToString(of[:])}, part); err != nil {
		t.Error(err)
	}
	of[0]++
	err := fetcher(t).Get(t.Context(), File{URL: server.URL, SHA512: hex.EncodeToString(of[:])}, part)
	if err == nil || !strings.Contains(err.Error(), "its sha512 is") {
		t.Errorf("another sum: %v", err)
	}
	if _, err := os.Stat(part); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a wrong file is still there: %v", err)
	}
}
