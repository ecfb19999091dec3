package recipes

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Version is the version of the recipe format that this package reads.
const Version = 1

// Recipe is a recipe that is right as far as this package can tell. Whether its
// kinds exist and accept their options is found by [DecodeAll].
type Recipe struct {
	File     string // as it was named to Load or Parse, for messages
	Path     string // File as an absolute path, for records; empty if the recipe was not loaded from a file
	Dir      string // of File; what a relative path in the recipe is relative to
	Version  int
	Name     string
	Base     Base
	Disk     Disk
	Bootc    Bootc
	Ostree   Ostree
	Steps    []Step
	Verify   []Assertion
	Identity Identity
	Register Register
	Digest   string // SHA-256 of the bytes and of the Sets, in hex
}

// Base is the image that the recipe starts from. Name, Path or URL is set.
type Base struct {
	Name string // of a base or an image in the store
	Path string // cleaned, and joined with Dir if it was relative
	// URL is where it is fetched from: by http or https if one of the sums or Sums is set,
	// or from a registry, as oci:HOST/NAME:TAG.
	URL string
	// SHA256 and SHA512 are what the file must have, in lower case; empty if not said.
	SHA256, SHA512 string
	// Sums is the URL of a list of sums. Keyring is a file, like Path, with the keys one of
	// which has signed it; empty if none has to.
	Sums, Keyring string
	// MaxAge is after how long it is asked again which file Sums, or a tag, means; 0 for
	// never.
	MaxAge time.Duration
	// AllowBacking lets the image be the difference to another, in a file of its directory.
	AllowBacking bool
	// Raw says that the file is raw, whatever it looks like.
	Raw bool
	Pos Pos
}

// Step is one step.
type Step struct {
	Index   int    // from 0
	Name    string // empty if not given; several steps may share one
	Kind    string
	Env     map[string]string
	Network *bool         // nil leaves it to the kind
	MaxAge  time.Duration // 0 for no limit
	Timeout time.Duration // of the whole step; 0 for none
	// Hidden says what becomes of files that the step leaves where the system, once it
	// has started, has something else mounted: [HiddenAllow], [HiddenError], or "",
	// which is to be told of them.
	Hidden  string
	Options Options
	Pos     Pos
}

// What a step may say of files that will be hidden.
const (
	HiddenAllow = "allow"
	HiddenError = "error"
)

// Assertion is one thing to verify.
type Assertion struct {
	Index   int // from 0
	Kind    string
	Options Options
	Pos     Pos
}

// Identity says what sets the image apart, beside the GUIDs of its disk and
// partitions, which every image has anew.
type Identity struct {
	Filesystems bool   // also new UUIDs of filesystems
	Labels      string // template of their labels, with {name} and {label}; empty leaves them
	KeepTypes   bool   // the types of partitions stay as the base has them
	Pos         Pos
}

// Register says where a finished image is made known beside the store.
type Register struct {
	Machined bool `yaml:"machined"` // to systemd-machined, for machinectl
}

// BaseProblem is a problem with the base, for what Parse cannot judge.
func (r *Recipe) BaseProblem(format string, args ...any) Problem {
	return newProblem(r.File, r.Base.Pos, "base", "%s", fmt.Sprintf(format, args...))
}

// BasePlace is where the recipe says its base, for errors about what has that name.
func (r *Recipe) BasePlace() string { return placeOf(r.BaseProblem("")) }

func placeOf(p Problem) string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// IdentityProblem is a problem with a field of identity, for what Parse cannot judge.
func (r *Recipe) IdentityProblem(field, format string, args ...any) Problem {
	return newProblem(r.File, r.Identity.Pos, at("identity", field), "%s", fmt.Sprintf(format, args...))
}

// Load reads a recipe from a regular file, as [Parse] does.
func Load(file string, sets ...Set) (*Recipe, error) {
	data, err := readFile(file)
	if err != nil {
		return nil, err
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return nil, fmt.Errorf("find the directory of %s: %w", file, err)
	}
	r, err := Parse(file, data, sets...)
	if r != nil {
		r.Path = path
	}
	return r, err
}

// readFile reads no more of a file than Parse would accept. It never waits for
// anybody: a pipe that nobody writes to would block for ever.
func readFile(file string) ([]byte, error) {
	fi, err := os.Stat(file) // opening a device may already do something to it
	if err != nil {
		return nil, err
	}
	if err := checkFile(file, fi); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	if fi, err = f.Stat(); err != nil {
		return nil, err
	}
	if err := checkFile(file, fi); err != nil { // it may be another file by now
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxBytes+1))
}

// checkFile refuses a file that cannot be a recipe, by what it is.
func checkFile(file string, fi fs.FileInfo) error {
	p := newProblem(file, Pos{}, "", "")
	switch mode := fi.Mode(); {
	case mode.IsRegular() && fi.Size() > maxBytes:
		p.Message = tooLarge
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		p.Message, p.Hint = "a directory, not a recipe", recipesIn(file)
	case mode&fs.ModeNamedPipe != 0:
		p.Message, p.Hint = "a pipe, not a recipe", inFile
	case mode&fs.ModeSocket != 0:
		p.Message, p.Hint = "a socket, not a recipe", inFile
	default:
		p.Message, p.Hint = "a device, not a recipe", inFile
	}
	return Problems{p}
}

// recipesIn is a hint with the files in a directory that look like recipes.
func recipesIn(dir string) string {
	entries, _ := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); ext == ".yaml" || ext == ".yml" {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	if len(names) == 0 || len(names) > 5 {
		return ""
	}
	return "did you mean " + strings.Join(names, " or ") + "?"
}

const inFile = "write the recipe to a file: the paths in it are relative to where that is"

// Parse reads a recipe. The name of the file is for messages and for relative
// paths. The error is [Problems], with all of them. If the file is a recipe of
// a known version, what is right of it comes with them, to look for more
// problems in and for nothing else. There, a step whose kind could not be told
// has none.
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
