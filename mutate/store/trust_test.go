package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/store"
)

// nobody is another user.
const nobody = 65534

// place is a directory of the test's own with a store in it, and precious, a file beside the store.
type place struct{ dir, store, precious string }

// tampering changes path, which is part of the place or will be.
type tampering func(path string, p place) error

func newPlace(t *testing.T) place {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p := place{dir, filepath.Join(dir, "way", "store"), filepath.Join(dir, "precious")}
	for _, d := range []string{"", "bases", "layers", "images", "tmp", "locks", "inputs"} {
		do(t, os.MkdirAll(filepath.Join(p.store, d), 0o755))
	}
	do(t, os.WriteFile(p.precious, []byte("precious"), 0o644))
	return p
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestUntrustedStores: what others can change is refused, with the path, its
// owner and mode, and the mend; and nothing is done by way of it.
func TestUntrustedStores(t *testing.T) {
	type test struct {
		root   bool
		path   string // relative to the directory of the test
		tamper tampering
	}
	tests := map[string]test{
		"written by all":           {path: "way/store", tamper: chmod(0o777)},
		"written by a group":       {path: "way/store", tamper: chmod(0o775)},
		"the store is sticky":      {path: "way/store", tamper: chmod(0o777 | os.ModeSticky)},
		"the way written by all":   {path: "way", tamper: chmod(0o777)},
		"the way written by group": {path: "way", tamper: chmod(0o770)},
		"another's":                {root: true, path: "way/store", tamper: chown},
		"another's way":            {root: true, path: "way", tamper: chown},
		"another's sticky way": {root: true, path: "way", tamper: func(path string, _ place) error {
			return errors.Join(os.Chown(path, nobody, nobody), os.Chmod(path, 0o777|os.ModeSticky))
		}},
		"another's link": {root: true, path: "way", tamper: func(path string, p place) error {
			return errors.Join(os.Rename(path, p.dir+"/real"), os.Symlink("real", path), os.Lchown(path, nobody, nobody))
		}},
		"pool.xfs of another":   {root: true, path: "way/store/pool.xfs", tamper: then(empty, chown)},
		"pool.xfs to write":     {path: "way/store/pool.xfs", tamper: then(empty, chmod(0o666))},
		"pool.xfs a link":       {path: "way/store/pool.xfs", tamper: linkToPrecious},
		"pool.xfs a pipe":       {path: "way/store/pool.xfs", tamper: pipe},
		"pool.xfs a directory":  {path: "way/store/pool.xfs", tamper: mkdir},
		"pool.xfs.new a link":   {path: "way/store/pool.xfs.new", tamper: linkToPrecious},
		"pool.xfs.new dangling": {path: "way/store/pool.xfs.new", tamper: linkToNothing},
		"pool a link":           {path: "way/store/pool", tamper: linkToDir},
		"pool to write":         {path: "way/store/pool", tamper: then(mkdir, chmod(0o777))},
		"pool of another":       {root: true, path: "way/store/pool", tamper: then(mkdir, chown)},
		"lock a link":           {path: "way/store/lock", tamper: linkToPrecious},
		"lock a pipe":           {path: "way/store/lock", tamper: pipe},
	}
	for _, part := range []string{"bases", "layers", "images", "tmp", "locks", "inputs"} {
		path := "way/store/" + part
		for name, tamper := range map[string]tampering{
			"a link": linkToDir, "dangling": linkToNothing, "a file": empty, "a pipe": pipe,
			"to write": chmod(0o777), "another's": chown,
		} {
			if name != "to write" && name != "another's" {
				tamper = then(remove, tamper)
			}
			tests[part+" "+name] = test{name == "another's", path, tamper}
		}
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			if tc.root {
				fixtures.Require(t, fixtures.Root)
			}
			p := newPlace(t)
			path := filepath.Join(p.dir, tc.path)
			do(t, tc.tamper(path, p))
			fi, err := os.Lstat(path)
			do(t, err)
			foretold := store.Trusted(p.store)
			_, err = store.Open(t.Context(), p.store, func(line string) { t.Errorf("note: %s", line) })
			if fault.Of(err) != fault.Host {
				t.Fatalf("Open = %v, of class %q", err, fault.Of(err))
			}
			if fmt.Sprint("open store: ", foretold) != err.Error() {
				t.Errorf("Trusted = %v, and Open: %v", foretold, err)
			}
			for _, word := range []string{path + " cannot be trusted", "owner: user ", fi.Mode().String()} {
				if !strings.Contains(err.Error(), word) {
					t.Errorf("error %q lacks %q", err, word)
				}
			}
			if strings.Contains(err.Error(), "is a symbolic link") && fi.Mode().Type() != os.ModeSymlink {
				t.Errorf("error %q of what is no link", err)
			}
			if tc.root && !strings.Contains(err.Error(), fmt.Sprint(nobody)) {
				t.Errorf("error %q does not name the owner", err)
			}
			if mend := fault.Mend(err); !strings.Contains(mend, "--store") {
				t.Errorf("mend %q", mend)
			}
			if b, err := os.ReadFile(p.precious); string(b) != "precious" {
				t.Errorf("the file beside the store holds %q, %v", b, err)
			}
		})
	}
}

// TestTrustedStores: places that are fine, and stay so.
func TestTrustedStores(t *testing.T) {
	for name, tc := range map[string]func(t *testing.T, p place) (open string){
		"as it is": func(t *testing.T, p place) string { return p.store },
		"below a sticky directory": func(t *testing.T, p place) string {
			do(t, os.Chmod(filepath.Dir(p.store), 0o777|os.ModeSticky))
			return p.store
		},
		"by a link": func(t *testing.T, p place) string {
			do(t, os.Symlink("way/../way/store", p.dir+"/link"))
			return p.dir + "/link"
		},
		"by an absolute link on the way": func(t *testing.T, p place) string {
			do(t, os.Symlink(p.dir+"/way/", p.dir+"/link"))
			return p.dir + "/link/store"
		},
		"by its last letters": func(t *testing.T, p place) string { return p.store + "//.//" },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			s := reopen(t, tc(t, p))
			if s.Dir() != p.store {
				t.Errorf("Dir is %s, want %s", s.Dir(), p.store)
			}
		})
	}
}

// TestLinksToAStore: as many as the kernel follows, and no more.
func TestLinksToAStore(t *testing.T) {
	p := newPlace(t)
	last := p.store
	for n := range 41 {
		link := fmt.Sprintf("%s/link%d", p.dir, n)
		do(t, os.Symlink(last, link))
		last = link
	}
	reopen(t, p.dir+"/link39")
	if _, err := store.Open(t.Context(), last, nil); !errors.Is(err, unix.ELOOP) || !errors.Is(err, store.ErrNoPlace) {
		t.Errorf("by 41 links: %v", err)
	}
}

// TestStoreIsMadeInTrustedPlacesAlone: nothing is made through a link of another user.
func TestStoreIsMadeInTrustedPlacesAlone(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	p := newPlace(t)
	do(t, os.Symlink(p.dir, p.dir+"/link"))
	do(t, os.Lchown(p.dir+"/link", nobody, nobody))
	if _, err := store.Open(t.Context(), p.dir+"/link/new/store", nil); fault.Of(err) != fault.Host {
		t.Errorf("Open = %v", err)
	}
	if exists(p.dir + "/new") {
		t.Error("made a directory by way of another user's link")
	}
	// A link that leads to itself ends.
	do(t, os.Symlink("round", p.dir+"/round"))
	if _, err := store.Open(t.Context(), p.dir+"/round/store", nil); fault.Of(err) != fault.Host {
		t.Errorf("Open of a link to itself = %v", err)
	}
}

func chmod(mode os.FileMode) tampering {
	return func(path string, _ place) error { return os.Chmod(path, mode) }
}

func chown(path string, _ place) error  { return os.Lchown(path, nobody, nobody) }
func empty(path string, _ place) error  { return os.WriteFile(path, nil, 0o600) }
func mkdir(path string, _ place) error  { return os.Mkdir(path, 0o755) }
func remove(path string, _ place) error { return os.Remove(path) }
func pipe(path string, _ place) error   { return unix.Mkfifo(path, 0o600) }

func linkToPrecious(path string, p place) error { return os.Symlink(p.precious, path) }
func linkToNothing(path string, p place) error  { return os.Symlink(p.dir+"/nothing", path) }
func linkToDir(path string, p place) error {
	return errors.Join(os.Mkdir(p.dir+"/other", 0o755), os.Symlink(p.dir+"/other", path))
}

func then(all ...tampering) tampering {
	return func(path string, p place) error {
		for _, f := range all {
			if err := f(path, p); err != nil {
				return err
			}
		}
		return nil
	}
}
