package store_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/store"
)

// checked is a record that knows whose it is.
type checked struct{ Name string }

func (c *checked) Check(name string) error {
	if c.Name != name {
		return errors.New("another's record")
	}
	return nil
}

// TestBadRecords: an object that is not whole is named, with the mend, and can
// be removed; nothing is followed, nothing waits, no memory is taken for it.
func TestBadRecords(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, json, raw string){
		"empty":        func(t *testing.T, json, _ string) { do(t, os.WriteFile(json, nil, 0o600)) },
		"no JSON":      func(t *testing.T, json, _ string) { do(t, os.WriteFile(json, make([]byte, 4096), 0o600)) },
		"a list":       func(t *testing.T, json, _ string) { do(t, os.WriteFile(json, []byte("[]"), 0o600)) },
		"null":         func(t *testing.T, json, _ string) { do(t, os.WriteFile(json, []byte("null"), 0o600)) },
		"another type": func(t *testing.T, json, _ string) { do(t, os.WriteFile(json, []byte(`{"Digest":"x"}`), 0o600)) },
		"another's":    func(t *testing.T, json, _ string) { do(t, os.WriteFile(json, []byte(`{"Name":"db"}`), 0o600)) },
		"too large": func(t *testing.T, json, _ string) {
			do(t, os.Truncate(json, 1<<40))
		},
		"a record that is a link": func(t *testing.T, json, _ string) {
			do(t, os.Rename(json, json+".moved"))
			do(t, os.Symlink(json+".moved", json))
		},
		"a record that is a pipe": func(t *testing.T, json, _ string) {
			do(t, os.Remove(json))
			do(t, unix.Mkfifo(json, 0o600))
		},
		"a record that is a directory": func(t *testing.T, json, _ string) {
			do(t, os.Remove(json))
			do(t, os.Mkdir(json, 0o700))
		},
		"a record to write":  func(t *testing.T, json, _ string) { do(t, os.Chmod(json, 0o666)) },
		"a disk to write":    func(t *testing.T, _, raw string) { do(t, os.Chmod(raw, 0o666)) },
		"a disk that is not": func(t *testing.T, _, raw string) { do(t, os.Remove(raw)) },
		"a disk that is a link": func(t *testing.T, _, raw string) {
			do(t, os.Rename(raw, raw+".moved"))
			do(t, os.Symlink(raw+".moved", raw))
		},
		"a disk that is a directory": func(t *testing.T, _, raw string) {
			do(t, os.Remove(raw))
			do(t, os.Mkdir(raw, 0o700))
		},
		"another user's disk": func(t *testing.T, _, raw string) {
			fixtures.Require(t, fixtures.Root)
			do(t, os.Chown(raw, nobody, nobody))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			run := begin(t, s)
			file := run.Path("work.raw")
			do(t, os.WriteFile(file, []byte("disk"), 0o600))
			do(t, s.Publish(t.Context(), file, store.Images, "web", checked{"web"}, nil))
			do(t, s.Load(store.Images, "web", &checked{}))
			json := s.Path(store.Images, "web", "json")
			spoil(t, json, s.Path(store.Images, "web", "raw"))
			err := s.Load(store.Images, "web", &checked{})
			if !errors.Is(err, store.ErrBadRecord) || errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), json) {
				t.Errorf("Load = %v", err)
			}
			if mend := fault.Mend(err); mend != "imgmut rm web removes it" {
				t.Errorf("mend %q", mend)
			}
			do(t, s.Remove(t.Context(), store.Images, "web"))
			if err := s.Load(store.Images, "web", &checked{}); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("removed, and Load = %v", err)
			}
		})
	}
}

// TestLargestRecord: a record may have 64 MiB, and no byte more.
func TestLargestRecord(t *testing.T) {
	s := open(t)
	mustPublish(t, s, begin(t, s), store.Images, "web", "disk")
	json := s.Path(store.Images, "web", "json")
	text := append([]byte(`{"Text":"x"}`), bytes.Repeat([]byte(" "), 64<<20)...)
	do(t, os.WriteFile(json, text[:64<<20], 0o600))
	do(t, s.Load(store.Images, "web", &record{}))
	do(t, os.WriteFile(json, text[:64<<20+1], 0o600))
	if err := s.Load(store.Images, "web", &record{}); !errors.Is(err, store.ErrBadRecord) {
		t.Errorf("one byte more, and Load = %v", err)
	}
}

// TestLoadWhileRemoved: what is removed and made again all the time is there or
// is not, but it is never half.
func TestLoadWhileRemoved(t *testing.T) {
	s := open(t)
	run := begin(t, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 40 {
			if err := publish(t.Context(), s, run, store.Images, "web", "disk"); err != nil {
				t.Error(err)
			}
			if err := s.Remove(t.Context(), store.Images, "web"); err != nil {
				t.Error(err)
			}
		}
	}()
	for {
		if err := s.Load(store.Images, "web", &record{}); err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}
