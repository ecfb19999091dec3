package step

import (
	"archive/tar"
	"context"
	"fmt"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/recipes"
)

var copyKind = recipes.Kind[Step]{
	Name:    "copy",
	Version: 2,
	Summary: "copy a file or a directory tree from beside the recipe",
	Example: `
- copy: {from: site/, to: /srv/www, owner: www-data:www-data}
- copy: {from: app.conf, to: /etc/app/, mode: "0640"}
- copy: {from: rootfs/, to: /, owner: keep, mode: keep}
`,
	New: func() Step { return new(Copy) },
}

// Copy copies a file or a tree from the recipe's directory.
//
// What is in the directory From goes into the directory To. A file goes to the
// path To, or into the directory To if that ends in a slash. Directories that
// exist in the image keep their owner and mode, so that copying a tree with
// etc/ in it does not change /etc itself. If From is a symbolic link, what it
// leads to is copied; links in a tree stay links.
//
// It is an archive copy: bytes, holes, hard links within the tree, symbolic
// links, extended attributes and ACLs, times. But two checkouts of one commit
// make the same layer, so what is theirs by chance is not taken over: the copy
// belongs to root:root, and a mode that only a umask made is 0644 or 0755
// (modes given by hand, such as 0440 or set-user-ID, stay). Owner and Mode say
// otherwise; "keep" takes over what the file has, and makes it part of the key.
//
// Times of modification are taken over, but are not part of the key: a layer
// has those of the checkout it was made from. SOURCE_DATE_EPOCH bounds them when
// the layer is made.
type Copy struct {
	From  string `yaml:"from" json:"from"`
	To    string `yaml:"to" json:"to"`
	Mode  string `yaml:"mode" json:"mode,omitempty"`   // of regular files, octal; or keep
	Owner string `yaml:"owner" json:"owner,omitempty"` // USER or USER:GROUP; or keep; root:root if empty
}

// Validate implements [Step].
func (c *Copy) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	v.Check("from", beside(c.From))
	v.Check("to", targetDirectory(c.To))
	if c.Mode != keep {
		v.Check("mode", mode(c.Mode))
	}
	if c.Owner != keep {
		v.Check("owner", owner(c.Owner))
	}
	return v.Problems()
}

// from is what the step reads.
func (c *Copy) from() From {
	return From{Path: path.Clean(c.From), KeepOwner: c.Owner == keep, KeepMode: c.Mode == keep}
}

// Inputs implements [Inputter].
func (c *Copy) Inputs() []From { return []From{c.from()} }

// Targets implements [Targeter].
func (c *Copy) Targets() map[string]string { return map[string]string{"to": c.To} }

// Apply implements [Step].
func (c *Copy) Apply(ctx context.Context, g Guest, src *Source) error {
	var files int64 // the mode of regular files, if the recipe says it
	if c.Mode != "" && c.Mode != keep {
		m, err := agent.ParseMode(c.Mode)
		if err != nil {
			return err
		}
		files = int64(m)
	}
	var private []string // files that come to be readable by others
	name := func(f *inputFile) string {
		if c.Mode == "" && f.isPrivate() {
			private = append(private, f.path)
		}
		if f.relative() == "" && !f.isDir() && strings.HasSuffix(c.To, "/") {
			return path.Join(c.To, path.Base(f.path))
		}
		return path.Join(c.To, f.relative())
	}
	change := func(h *tar.Header) {
		if c.Owner != keep {
			agent.SetOwner(h, c.Owner)
		}
		if h.Typeflag == tar.TypeReg && c.Mode != "" && c.Mode != keep {
			h.Mode = files
		}
	}
	err := g.Put(ctx, func(t *tar.Writer) error { return src.send(ctx, c.from(), t, name, change) })
	if err == nil && len(private) > 0 && src.Note != nil {
		src.Note(fmt.Sprintf("%s, which only its owner may read here, can be read by everybody in the image (%d such files): "+
			"if that is not meant, say mode: keep, or which mode", private[0], len(private)))
	}
	return err
}
