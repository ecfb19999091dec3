package recipes

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Pos is a place in a recipe file. Lines and columns count from 1, columns in
// characters. A value that came from a [Set] has none: both are 0.
type Pos struct {
	Line, Col int
	set       string // the path of the Set it came from
}

// Problem is one thing that is wrong with a recipe, and where.
type Problem struct {
	File    string `json:"file"`           // the recipe, or "--set name" for a value from there
	Line    int    `json:"line,omitempty"` // 0 for a value from a Set
	Col     int    `json:"col,omitempty"`
	Path    string `json:"path,omitempty"` // like steps[2].write.mode; empty for the recipe as a whole
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // how to mend it, if that is known
}

// Error is "file:line:col: path: message". The hint is not part of it.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
	}
	if p.Path != "" && p.File != setLabel(p.Path) {
		b.WriteString(": " + p.Path)
	}
	b.WriteString(": " + p.Message)
	return b.String()
}

// Problems are all that is wrong with a recipe.
type Problems []Problem

// Error has a line for each problem, in the order of the file.
func (ps Problems) Error() string {
	var lines []string
	for _, p := range ps.Sorted() {
		lines = append(lines, p.Error())
	}
	return strings.Join(lines, "\n")
}

// Fault says that the recipe is to blame.
func (ps Problems) Fault() string { return "recipe" }

// Sorted is a copy in the order of the file, what came from a [Set] last.
func (ps Problems) Sorted() Problems {
	sorted := slices.Clone(ps)
	slices.SortStableFunc(sorted, func(a, b Problem) int {
		return cmp.Or(
			cmp.Compare(btoi(a.Line == 0), btoi(b.Line == 0)),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col))
	})
	return sorted
}

// Merge makes one error of several: all their Problems, each once, or the
// first error of another type.
func Merge(errs ...error) error {
	var all Problems
	known := map[Problem]bool{}
	for _, err := range errs {
		var ps Problems
		if err != nil && !errors.As(err, &ps) {
			return err
		}
		for _, p := range ps {
			if !known[p] {
				known[p] = true
				all = append(all, p)
			}
		}
	}
	if len(all) == 0 {
		return nil
	}
	return all.Sorted()
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func newProblem(file string, at Pos, path, format string, args ...any) Problem {
	p := Problem{File: file, Line: at.Line, Col: at.Col, Path: path, Message: fmt.Sprintf(format, args...)}
	if at.set != "" {
		p.File, p.Line, p.Col = setLabel(at.set), 0, 0
	}
	return p
}

func setLabel(path string) string { return "--set " + path }

// didYouMean is a hint if a known word is close to the one that was written.
func didYouMean(word string, known []string) string {
	if nearest := Nearest(word, known); nearest != "" {
		return "did you mean " + nearest + "?"
	}
	return ""
}

// Nearest is the known word that was probably meant by one that is none: two
// letters away at most, "" if there is no such.
func Nearest(word string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if max(len(word)-len(k), len(k)-len(word)) >= least {
			continue // a distance at least as long
		}
		if d := distance(word, k); d < least && d < len(k) && (d < len(k)/2 || d == 1) {
			best, least = k, d
		}
	}
	return best
}

// distance is the number of letters to insert, delete, change or swap with
// their neighbour to make b of a.
func distance(a, b string) int {
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+btoi(a[i-1] != b[j-1]))
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}

// label is a key as messages and paths have it: short, and quoted if it holds
// what a terminal would not show as it is.
func label(key string) string {
	key = shorten(key)
	if strings.ContainsFunc(key, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(key)
	}
	return key
}

// shorten keeps a quoted value from filling the screen.
func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}
