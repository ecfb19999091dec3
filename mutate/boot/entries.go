package boot

import (
	"cmp"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
)

// maxEntries is how many files there may be beside loader entries, themselves
// among them: a directory of more is none of a boot loader's.
const maxEntries = 256

// entry is a loader entry (Boot Loader Specification, type 1).
type entry struct {
	id      string // name of its file, without .conf
	version string
	options string
}

// entryOptions gives the options of the entry that starts by default.
func entryOptions(tree fs.FS, dir string) string {
	files, err := etc.ReadDir(tree, path.Join(dir, "loader/entries"), maxEntries)
	if err != nil {
		return ""
	}
	var entries []entry
	total := 0
	for _, file := range files {
		id, ok := strings.CutSuffix(file, ".conf")
		if !ok {
			continue
		}
		text := read(tree, path.Join(dir, "loader/entries", file))
		if total += len(text); total > maxFile {
			return "" // entries have some hundred bytes
		}
		if e := parseEntry(text); e.options != "" {
			e.id = id
			entries = append(entries, e)
		}
	}
	if len(entries) == 0 {
		return ""
	}
	environment := grubEnvironment(tree, dir)
	best := slices.MaxFunc(entries, func(a, b entry) int {
		return cmp.Or(compareVersions(a.version, b.version), compareVersions(a.id, b.id))
	})
	configured := loaderDefault(read(tree, path.Join(dir, "loader/loader.conf")))
	for _, wanted := range []string{environment["saved_entry"], configured} {
		i := slices.IndexFunc(entries, func(e entry) bool {
			matches, err := path.Match(strings.TrimSuffix(wanted, ".conf"), e.id)
			return wanted != "" && err == nil && matches
		})
		if i >= 0 {
			best = entries[i]
			break
		}
	}
	return expand(best.options, environment)
}

// parseEntry reads an entry. Of options it takes no more than it needs to be
// longer than a kernel takes, because adding a line copies those before it.
func parseEntry(text string) (e entry) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), " ")
		value = strings.TrimSpace(value)
		switch key {
		case "version":
			e.version = value
		case "options":
			if len(e.options) <= maxCommandLine {
				e.options = strings.TrimSpace(e.options + " " + value) // there may be several
			}
		}
	}
	return e
}

// loaderDefault reads the default of loader.conf(5): a pattern of names.
func loaderDefault(text string) string {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "default" {
			return f[1]
		}
	}
	return ""
}

// compareVersions compares numbers in a text as numbers, and the rest as text.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		x, restA := chunk(a)
		y, restB := chunk(b)
		n, errX := strconv.ParseUint(x, 10, 64)
		m, errY := strconv.ParseUint(y, 10, 64)
		c := cmp.Compare(x, y)
		if errX == nil && errY == nil && n != m {
			c = cmp.Compare(n, m)
		}
		if c != 0 {
			return c
		}
		a, b = restA, restB
	}
	return cmp.Compare(len(a), len(b))
}

// chunk cuts off the digits, or what is none, at the start of a text.
func chunk(s string) (first, rest string) {
	digit := func(i int) bool { return '0' <= s[i] && s[i] <= '9' }
	i := 1
	for i < len(s) && digit(i) == digit(0) {
		i++
	}
	return s[:i], s[i:]
}
