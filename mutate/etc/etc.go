// Package etc reads small text files of an image, such as fstab(5) and
// os-release(5). A stranger wrote them: a file that is too large for a text
// counts as missing, and a line that cannot be read is passed over.
package etc

import (
	"io/fs"
	"strings"
)

// MaxText is the largest text file that is read, in bytes.
const MaxText = 8 << 20

// Read reads a text file, following links. It gives "" for a file that is
// missing, not regular, or larger than [MaxText].
func Read(t fs.FS, name string) string {
	if fi, err := fs.Stat(t, name); err != nil || !fi.Mode().IsRegular() || fi.Size() > MaxText {
		return ""
	}
	b, err := fs.ReadFile(t, name)
	if err != nil {
		return ""
	}
	return string(b)
}

// ParseOSRelease reads the assignments of an os-release file (os-release(5)).
func ParseOSRelease(text string) map[string]string {
	vars := map[string]string{}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && !strings.HasPrefix(key, "#") {
			vars[key] = strings.Trim(value, `"'`)
		}
	}
	return vars
}
