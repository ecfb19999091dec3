package step

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// checkTarget says what is wrong with a path in the image.
func checkTarget(name string) error {
	if !path.IsAbs(name) || path.Clean(name) != strings.TrimRight(name, "/") || path.Clean(name) == "/" {
		return fmt.Errorf("%q: want a clean absolute path in the image", name)
	}
	for _, hidden := range []string{"/proc", "/sys", "/dev", "/run", "/tmp"} {
		if name == hidden || strings.HasPrefix(name, hidden+"/") {
			return fmt.Errorf("%q: %s is not part of the image: it is made anew at every start", name, hidden)
		}
	}
	return nil
}

// checkSource says what is wrong with a path beside the recipe.
func checkSource(name string) error {
	if !fs.ValidPath(strings.TrimRight(name, "/")) {
		return fmt.Errorf("%q: want a path inside the recipe's own directory", name)
	}
	return nil
}

// parseMode reads octal permissions; special bits are allowed, as in chmod(1).
func parseMode(s, otherwise string) (uint32, error) {
	n, err := strconv.ParseUint(cmp.Or(s, otherwise), 8, 12)
	if err != nil {
		return 0, fmt.Errorf(`%q: want octal permissions such as "0644"`, s)
	}
	return uint32(n), nil
}

var ownerForm = regexp.MustCompile(`^([a-z_][a-z0-9_.-]*\$?|\d+)(:([a-z_][a-z0-9_.-]*\$?|\d+))?$`)

// checkOwner says what is wrong with an owner, which is USER or USER:GROUP, by
// name or number; the empty one is right.
func checkOwner(s string) error {
	if s != "" && !ownerForm.MatchString(s) {
		return fmt.Errorf("%q: want USER or USER:GROUP, by name or number", s)
	}
	return nil
}
