package recipes

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Version is the version of the recipe format that this package reads.
const Version = 1

// Recipe is a recipe that is right as far as this package can tell: whether
// its kinds exist and accept their options is for those that know the kinds.
type Recipe struct {
	File     string // as it was named to Parse
	Dir      string // of File; what a relative path in the recipe is relative to
	Version  int
	Name     string
	Base     Base
	Steps    []Step
	Verify   []Assertion
	Register Register
	Digest   string // SHA-256 of the bytes and of the Sets, in hex
}

// Base is the image that the recipe starts from: either Name or Path is set.
type Base struct {
	Name   string // of a base or an image in the store
	Path   string // cleaned, and joined with Dir if it was relative
	SHA256 string // what the file must have, in lower case; empty if not said
	Pos    Pos
}

// Step is one step.
type Step struct {
	Index   int    // from 0
	Name    string // empty if not given; several steps may share one
	Kind    string
	Env     map[string]string
	Network *bool         // nil leaves it to the kind
	MaxAge  time.Duration // 0 for no limit
	Options Options
	Pos     Pos
}

// Assertion is one thing to verify.
type Assertion struct {
	Index   int // from 0
	Kind    string
	Options Options
	Pos     Pos
}

// Register says where a finished image is made known beside the store.
type Register struct {
	Machined bool `yaml:"machined"` // to systemd-machined, for machinectl
}

// BaseProblem is a problem with the base, for what Parse cannot judge.
func (r *Recipe) BaseProblem(format string, args ...any) Problem {
	return newProblem(r.File, r.Base.Pos, "base", "%s", fmt.Sprintf(format, args...))
}

// Load reads a recipe from a file, as [Parse] does.
func Load(file string, sets ...Set) (*Recipe, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	if fi, err := f.Stat(); err == nil && fi.IsDir() {
		return nil, Problems{newProblem(file, Pos{}, "", "a directory, not a recipe")}
	}
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, err
	}
	return Parse(file, data, sets...)
}

// Parse reads a recipe. The name of the file is for messages and for relative
// paths. The error is [Problems], with all of them. With them comes, if the file
// is a recipe of a version that is known, what is right of it: to look for more
// problems in, and for nothing else. A step without a kind in it is one whose
// kind could not be told.
func Parse(file string, data []byte, sets ...Set) (*Recipe, error) {
	root, problems := readTree(file, data)
	if root == nil {
		return nil, problems.Sorted()
	}
	for _, s := range sets {
		if err := root.apply(s); err != nil {
			problems = append(problems, newProblem(file, Pos{set: s.Path}, s.Path, "%v", err))
		}
	}
	r := &Recipe{File: file, Dir: filepath.Dir(file), Digest: digest(data, sets)}
	b := builder{decoder{file: file, problems: problems}, r}
	b.recipe(root)
	if len(b.problems) == 0 {
		return r, nil
	}
	if r.Version != 0 && r.Version != Version {
		r = nil
	}
	return r, b.problems.Sorted()
}

// digest of a recipe without sets is what sha256sum says.
func digest(data []byte, sets []Set) string {
	h := sha256.New()
	h.Write(data)
	for _, s := range sets {
		fmt.Fprintf(h, "\x00%q=%q", s.Path, s.Value) // no recipe holds a NUL
	}
	return hex.EncodeToString(h.Sum(nil))
}
