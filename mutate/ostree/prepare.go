package ostree

import (
	"io/fs"
	"path"

	"github.com/imgmut/imgmut/mutate/etc"
)

// Prepared is how a deployment is mounted when the system starts (ostree-prepare-root(1)).
type Prepared struct {
	ReadOnly  bool   // /sysroot
	Transient string // the place in which every start begins with what the commit has: "/etc", "/", or ""
}

// Prepared reads how the deployment is mounted, of its configuration, that of the
// machine first, and of the repository's. What counts when it starts is the copy that its
// initramfs has, which is not read here: it is of the same files, as they were when that
// was made.
func (d Deployment) Prepared(root fs.FS) Prepared {
	value := func(key string) string {
		for _, dir := range []string{"etc", "usr/lib"} {
			text := etc.Read(root, path.Join(d.Dir(), dir, "ostree/prepare-root.conf"))
			if v, ok := parseKeys(text)[key]; ok {
				return v
			}
		}
		return ""
	}
	isTrue := func(s string) bool { is, ok := etc.ParseBool(s); return is && ok }
	p := Prepared{ReadOnly: isTrue(value("sysroot.readonly"))}
	if value("sysroot.readonly") == "" {
		p.ReadOnly = isTrue(parseKeys(etc.Read(root, path.Join(repository, "config")))["sysroot.readonly"])
	}
	switch {
	case isTrue(value("root.transient")):
		p.Transient = "/"
	case isTrue(value("etc.transient")):
		p.Transient = "/etc"
	}
	return p
}
