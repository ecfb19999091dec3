package deliver

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/store"
)

// pool is a directory in machined's place, whose answer the test decides: that
// the real one reads images is what the scripts of cmd/imgmut show.
type pool struct {
	dir    string
	refuse error
	asked  func(name string)
}

func (p *pool) PoolPath(context.Context) (string, error) { return p.dir, nil }

func (p *pool) ImageOSRelease(_ context.Context, name string) (map[string]string, error) {
	if p.asked != nil {
		p.asked(name)
	}
	return nil, p.refuse
}

func (s source) machined(p *pool) Machined {
	return Machined{s.Source, func(context.Context) (Host, error) { return p, nil }}
}

// recorded is the image as its record has it.
func (s source) recorded(t *testing.T, name string) *record.Image {
	t.Helper()
	i := new(record.Image)
	if err := s.Store.Load(store.Images, name, i); err != nil {
		t.Fatal(err)
	}
	return i
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestMachinedPutsAndTakes(t *testing.T) {
	s := newSource(t)
	p := &pool{dir: t.TempDir()}
	m := s.machined(p)
	i := s.publish(t, record.Image{Name: "web", Digest: "d1"})
	target := filepath.Join(p.dir, "web.raw")
	p.asked = func(name string) {
		if !strings.HasPrefix(name, ".imgmut-") {
			t.Errorf("asked machined for %s", name)
		}
		if _, err := os.Stat(target); err == nil {
			t.Error("it has its name before machined has read it")
		}
		if f := s.recorded(t, "web").PoolFile; f == nil || f.Path != target {
			t.Errorf("about to be there, and the record says %+v", f)
		}
	}
	if m.Has(i) {
		t.Error("Has what was never put")
	}
	path, err := m.Put(t.Context(), i)
	if err != nil || path != target || read(t, target) != "disk of web" {
		t.Fatalf("Put = %s, %v", path, err)
	}
	if !m.Has(i) || !m.Has(s.recorded(t, "web")) {
		t.Errorf("put, and Has is false of %+v", i.PoolFile)
	}
	if err := m.Check(t.Context(), "web"); err != nil {
		t.Errorf("Check of our own = %v", err)
	}
	nothingBeside(t, p.dir, "web.raw")
	if err := m.Take(t.Context(), i); err != nil {
		t.Error(err)
	}
	nothingBeside(t, p.dir, "")
	if m.Has(i) {
		t.Error("taken back, and Has is true")
	}
	if err := m.Take(t.Context(), i); err != nil {
		t.Errorf("Take again = %v", err)
	}
}

// TestMachinedReadsNothingThatPanics: an ext4 that asks the kernel to panic does
// not while machined has it mounted, and is registered as it is in the store.
func TestMachinedReadsNothingThatPanics(t *testing.T) {
	s := newSource(t)
	p := &pool{dir: t.TempDir()}
	i := s.publish(t, record.Image{Name: "web", Digest: "d1"})
	ext4 := make([]byte, 4096)
	copy(ext4[1024+0x38:], "\x53\xef") // its magic number
	ext4[1024+0x3C] = 3                // at damage, panic
	image := s.Store.Path(store.Images, "web", "raw")
	if err := errors.Join(os.Remove(image), os.WriteFile(image, ext4, 0o444)); err != nil {
		t.Fatal(err)
	}
	var base record.Base
	err := s.Store.Update(t.Context(), store.Bases, i.Base, &base, func() error {
		base.Layout = disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Size: 4096, FS: "ext4"}}}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	asked := false
	p.asked = func(name string) {
		asked = true
		if at := read(t, filepath.Join(p.dir, name+".raw"))[1024+0x3C]; at != 2 {
			t.Errorf("machined reads an image that does %d at damage, want 2, which is to mount it read-only", at)
		}
	}
	target, err := s.machined(p).Put(t.Context(), i)
	if err != nil || !asked {
		t.Fatalf("Put = %v, machined asked: %v", err, asked)
	}
	if read(t, target) != string(ext4) {
		t.Error("what is registered is not the image")
	}
}

// TestMachinedKeepsTheOldUntilTheNewIsRead: whatever is wrong with an image, the
// one that was registered before stays, and stays known.
func TestMachinedKeepsTheOldUntilTheNewIsRead(t *testing.T) {
	s := newSource(t)
	p := &pool{dir: t.TempDir()}
	m := s.machined(p)
	i := s.publish(t, record.Image{Name: "web", Digest: "d1"})
	target, err := m.Put(t.Context(), i)
	if err != nil {
		t.Fatal(err)
	}
	before := *i.PoolFile
	i.Digest, p.refuse = "d2", errors.New("cannot read it")
	made := func() error { i.Digest = "d2"; return nil }
	if err := s.Store.Update(t.Context(), store.Images, "web", i, made); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Put(t.Context(), i); !errors.Is(err, p.refuse) {
		t.Errorf("Put = %v, want why machined refused", err)
	}
	if read(t, target) != "disk of web" {
		t.Error("the image registered before is gone")
	}
	if f := s.recorded(t, "web").PoolFile; f == nil || *f != before {
		t.Errorf("the record says %+v, want %+v", f, before)
	}
	nothingBeside(t, p.dir, "web.raw")
}

// TestMachinedLeavesOthersAlone: what somebody else or another store put there.
func TestMachinedLeavesOthersAlone(t *testing.T) {
	s := newSource(t)
	p := &pool{dir: t.TempDir()}
	m := s.machined(p)
	i := s.publish(t, record.Image{Name: "web", Digest: "d1"})
	target := filepath.Join(p.dir, "web.raw")
	for mark, want := range map[string]string{
		"": "imgmut did not put it there", "d1 /other/store": "from another store: /other/store",
	} {
		writeFile(t, target, "theirs")
		if mark != "" {
			if err := unix.Setxattr(target, ownMark, []byte(mark), 0); err != nil {
				t.Fatal(err)
			}
		}
		_, err := m.Put(t.Context(), i)
		for _, err := range []error{err, m.Check(t.Context(), "web")} {
			if fault.Of(err) != fault.Usage || !strings.Contains(err.Error(), want) || fault.Mend(err) == "" {
				t.Errorf("mark %q: %v, want %q", mark, err, want)
			}
		}
		i.PoolFile = &record.PoolFile{Path: target}
		if err := m.Take(t.Context(), i); err != nil {
			t.Error(err)
		}
		if read(t, target) != "theirs" {
			t.Errorf("mark %q: it is gone", mark)
		}
		os.Remove(target)
	}
}

// TestMachinedKnowsOfAFileThatItPut although something failed after that: else
// nobody would take it back.
func TestMachinedKnowsOfAFileThatItPut(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	s := newSource(t)
	p := &pool{dir: t.TempDir()}
	m := s.machined(p)
	i := s.publish(t, record.Image{Name: "web", Digest: "d1"})
	p.asked = func(string) { // what somebody mounts in the run's directory cannot be removed
		runs, err := filepath.Glob(s.Store.Root() + "/tmp/run-*")
		if err != nil || len(runs) != 1 {
			t.Fatalf("runs %q, %v", runs, err)
		}
		busy := filepath.Join(runs[0], "busy")
		if err := errors.Join(os.Mkdir(busy, 0o700), unix.Mount("none", busy, "tmpfs", 0, "")); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Unmount(busy, unix.MNT_DETACH) })
	}
	if _, err := m.Put(t.Context(), i); !errors.Is(err, unix.EBUSY) {
		t.Errorf("Put = %v, want that the run cannot be cleared up", err)
	}
	if read(t, filepath.Join(p.dir, "web.raw")) != "disk of web" {
		t.Error("it failed before the image had its name")
	}
	if err := m.Take(t.Context(), s.recorded(t, "web")); err != nil {
		t.Error(err)
	}
	nothingBeside(t, p.dir, "")
}

// TestMachinedTakesOrSaysWhyNot: what cannot be looked at may be ours, and must
// not be forgotten with the image.
func TestMachinedTakesOrSaysWhyNot(t *testing.T) {
	s := newSource(t)
	dir := t.TempDir()
	round := filepath.Join(dir, "round")
	if err := os.Symlink(round, round); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(round, "web.raw")
	i := &record.Image{Name: "web", PoolFile: &record.PoolFile{Path: path}}
	err := s.machined(&pool{dir: dir}).Take(t.Context(), i)
	if !errors.Is(err, unix.ELOOP) || fault.Of(err) != fault.Host || !strings.Contains(fault.Mend(err), path) {
		t.Errorf("Take = %v, hint %q; want why it cannot be looked at", err, fault.Mend(err))
	}
}
