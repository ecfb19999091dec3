package ostree

import (
	"context"
	"io/fs"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/tool"
)

// Systems that start from composefs. All of it in one file, because none of it was proven:
// no ostree of Debian knows composefs, so that no test has such an image.
//
// With ostree a deployment is what it always was, and there is an image of composefs
// beside its files, from which the booted system has them. What steps do to /etc and /var
// is the same, so mode etc goes. A new deployment needs an image too, which only an ostree
// makes that was built for it.
//
// bootc has a backend of its own, without ostree: another repository, another layout. That
// is recognised, and nothing else.

// composefsImage is the image of a deployment, in its directory.
const composefsImage = ".ostree.cfs"

// bootcComposefs are the directories of bootc's composefs backend in its volume.
var bootcComposefs = []string{"composefs", "state/deploy"}

// IsBootcComposefs says whether a volume is one of bootc's composefs backend, which is not
// ostree.
func IsBootcComposefs(root fs.FS) bool {
	for _, name := range bootcComposefs {
		if !isDir(root, name) {
			return false
		}
	}
	return !etc.Exists(root, path.Join(repository, "config"))
}

// BootcComposefs is why such a volume is refused, and the mend.
const (
	BootcComposefs     = "a system of bootc's composefs backend, which imgmut cannot work in"
	MendBootcComposefs = "install it without --composefs-backend (bootc install), so that it is one of ostree"
)

// StartsComposefs says whether a system starts from an image of composefs and from nothing
// else, by the text of its prepare-root.conf.
func StartsComposefs(conf string) bool {
	switch value := parseKeys(conf)["composefs.enabled"]; value {
	case "signed", "verity":
		return true
	default:
		is, ok := etc.ParseBool(value)
		return is && ok
	}
}

// NeedComposefs is an error of class [fault.Host] if the machine's ostree cannot make
// deployments that start from composefs; what is which one.
func NeedComposefs(ctx context.Context, what string) error {
	out, err := tool.Run(ctx, tool.Call{Program: "ostree", Args: []string{"--version"}, What: "ask ostree what it can do"})
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(out)) {
		if strings.TrimSpace(line) == "- composefs" {
			return nil
		}
	}
	return fault.New(fault.Host,
		"install an ostree that lists composefs in ostree --version, or take a system without (prepare-root.conf: composefs)",
		"%s starts from composefs, and the ostree of this machine cannot make that", what)
}
