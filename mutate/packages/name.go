package packages

import (
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// nameForm is what the managers agree on, with =version, :arch and the like
// after it. It cannot start with a dash, so it is never taken for an option, nor
// end with one, by which apt-get would remove it.
var nameForm = lazyregexp.New(`^[A-Za-z0-9@][A-Za-z0-9+._:=~^*/@-]*$`)

// pathForm is what a shell and the managers take as one word, and as it is.
var pathForm = lazyregexp.New(`^[A-Za-z0-9+._:=~^@%,/-]+$`)

// fileForm is how files of packages end.
var fileForm = lazyregexp.New(`\.(deb|rpm|apk|pkg\.tar(\.[a-z0-9]+)?)$`)

// CheckName says what is wrong with the form of a package's name.
func CheckName(name string) error {
	if isFile(name) {
		return fmt.Errorf("%q is a file, which can only be installed", name)
	}
	if !nameForm().MatchString(name) || strings.HasSuffix(name, "-") {
		return fmt.Errorf("%q is not the name of a package", name)
	}
	return nil
}

// CheckInstall says what is wrong with the form of what is to be installed: a
// name, or a path with a slash in it. That is a file of the image if it is
// absolute, and one beside the recipe otherwise.
func CheckInstall(name string) error {
	if !isFile(name) {
		if ending(name) != "" {
			return fmt.Errorf("%q: a file beside the recipe is written ./%s", name, name)
		}
		return CheckName(name)
	}
	switch local, beside := Beside(name); {
	case ending(name) == "":
		return fmt.Errorf("%q: want a file that ends in .deb, .rpm, .apk or .pkg.tar.zst", name)
	case !pathForm().MatchString(name):
		return fmt.Errorf("%q: want a path of letters, digits and +._:=~^@%%,-", name)
	case beside && !fs.ValidPath(local):
		return fmt.Errorf("%q: want a path inside the recipe's own directory", name)
	case !beside && path.Clean(name) != name:
		return fmt.Errorf("%q: want a clean absolute path in the image", name)
	}
	return nil
}

// isFile tells a file from a name: nano/bookworm-backports is one of apt's.
func isFile(name string) bool {
	return strings.HasPrefix(name, "/") || strings.HasPrefix(name, "./") || strings.HasPrefix(name, "../") ||
		strings.Contains(name, "/") && ending(name) != ""
}

// ending is how the file of a package ends: ".deb"; empty if it is none.
func ending(name string) string { return fileForm().FindString(name) }

// Beside gives the path, in the recipe's directory, of a package that is a file
// there.
func Beside(name string) (local string, ok bool) {
	if !isFile(name) || path.IsAbs(name) {
		return "", false
	}
	return strings.TrimPrefix(name, "./"), true
}

// Place is where in the image a file from beside the recipe is to be put. The
// command that installs it removes it.
func Place(local string) string { return path.Join(aside, "files", local) }
