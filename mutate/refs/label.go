package refs

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// A label is any word, so it is one only where the text says so. Those that are
// renamed are of letters, digits and . _ - alone, which nobody writes in two ways but
// for the dashes in the name of a unit.

// saysLabel is what stands before a label: LABEL=, a link, udev, Limine, GRUB, rEFInd.
const saysLabel = `\bLABEL=["']?|\bby-label/|\bID_FS_LABEL(?:_ENC)?==?["']?|\bfslabel\(|\bsearch\.fs_label[ \t]+["']?|` +
	`\bsearch\b[^\n;]*?[ \t](?:--label|--fs-label|-l)[ \t](?:[^\n;]*?[ \t])??["']?|(?m:^)[ \t]*volume[ \t]+["']?`

// endsLabel is what may follow one: nothing of a longer word, in which a unit's name has
// dashes as \x2d, unless it is the end of such a name.
const endsLabel = `(?:[^A-Za-z0-9._\-\\]|\\(?:[^x]|$)|\.(?:device|swap|mount)|$)`

var labelEnd = lazyregexp.New(`^` + endsLabel)

// labelsIn finds labels, nil if there are none to find.
func labelsIn(labels map[string]string) *regexp.Regexp {
	if len(labels) == 0 {
		return nil
	}
	var plain, escaped []string
	for label := range maps.Keys(labels) {
		plain = append(plain, regexp.QuoteMeta(label))
		escaped = append(escaped, regexp.QuoteMeta(strings.ReplaceAll(label, "-", escapedDash)))
	}
	slices.Sort(plain)
	slices.Sort(escaped)
	return regexp.MustCompile(`(?:(?:` + saysLabel + `)(` + strings.Join(plain, "|") + `)|` +
		`by\\x2dlabel-(` + strings.Join(escaped, "|") + `))` + endsLabel)
}

// renameLabels puts new labels in place of old ones. The text may get longer.
func (r *renamer) renameLabels(text string) string {
	if r.label == nil {
		return text
	}
	var b strings.Builder
	rest := 0
	for _, m := range r.label.FindAllStringSubmatchIndex(text, -1) {
		start, end := max(m[2], m[4]), max(m[3], m[5]) // of the one that is there
		fresh := r.Labels[strings.ReplaceAll(text[start:end], escapedDash, "-")]
		if m[4] >= 0 {
			fresh = strings.ReplaceAll(fresh, "-", escapedDash)
		}
		b.WriteString(text[rest:start])
		b.WriteString(fresh)
		rest = end
	}
	b.WriteString(text[rest:])
	return b.String()
}

// fit gives a file that has to keep its length that length: GRUB's environment
// block ends with as many # as there is room.
func fit(name, before, after string) (string, error) {
	more := len(after) - len(before)
	if path.Base(name) != "grubenv" || more == 0 {
		return after, nil
	}
	if more < 0 {
		return after + strings.Repeat("#", -more), nil
	}
	shorter, ok := strings.CutSuffix(after, strings.Repeat("#", more))
	if !ok {
		return "", fault.New(fault.Image, "make the label of identity.labels shorter", "%s has no room for a label that is longer", name)
	}
	return shorter, nil
}
