package step

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
)

// target says what is wrong with a path in the image.
func target(name string) error {
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

// targetFile is target for what cannot be a directory.
func targetFile(name string) error {
	if err := target(name); err != nil {
		return err
	}
	if strings.HasSuffix(name, "/") {
		return fmt.Errorf("%q: want the path of a file, without a slash at its end", name)
	}
	return nil
}

// targetDirectory is target for what may be the root.
func targetDirectory(name string) error {
	if name == "/" {
		return nil
	}
	return target(name)
}

// beside says what is wrong with a path beside the recipe.
func beside(name string) error {
	if !fs.ValidPath(strings.TrimRight(name, "/")) {
		return fmt.Errorf("%q: want a path inside the recipe's own directory", name)
	}
	return nil
}

// keep is what a mode or an owner says to be taken over as it is.
const keep = "keep"

// mode says what is wrong with permissions; empty ones are right.
func mode(s string) error {
	if s == "" {
		return nil
	}
	_, err := agent.ParseMode(s)
	return err
}

// owner says what is wrong with an owner; an empty one is right.
func owner(s string) error {
	if s == "" {
		return nil
	}
	return agent.CheckOwner(s)
}
