package step

import (
	"archive/tar"
	"context"
	"path"
	"strings"

	"github.com/imgmut/imgmut/recipes"
)

var copyKind = Kind{
	Name:    "copy",
	Version: 1,
	Summary: "copy a file or a directory tree from beside the recipe",
	Example: `
- copy: {from: site/, to: /srv/www, owner: www-data:www-data}
- copy: {from: app.conf, to: /etc/app/, mode: "0640"}
`,
	New: func() Step { return new(Copy) },
}

// Copy copies a file or a tree from the recipe's directory: modes, owners,
// symbolic links and extended attributes as they are, unless Owner or Mode say
// otherwise.
//
// What is in the directory From goes into the directory To. A file goes to the
// path To, or into the directory To if that ends in a slash. Directories that
// exist in the image keep their owner and mode, so that copying a tree with
// etc/ in it does not change /etc itself.
type Copy struct {
	From  string `yaml:"from" json:"from"`
	To    string `yaml:"to" json:"to"`
	Mode  string `yaml:"mode" json:"mode,omitempty"`   // of regular files, octal; as they are if empty
	Owner string `yaml:"owner" json:"owner,omitempty"` // as they are if empty
}

// Validate implements [Step].
func (c *Copy) Validate(o recipes.Options) recipes.Problems {
	var ps recipes.Problems
	if err := checkSource(c.From); err != nil {
		ps = append(ps, o.Problem("from", "%v", err))
	}
	if err := checkTarget(c.To); err != nil && c.To != "/" {
		ps = append(ps, o.Problem("to", "%v", err))
	}
	if c.Mode != "" {
		if _, err := parseMode(c.Mode, ""); err != nil {
			ps = append(ps, o.Problem("mode", "%v", err))
		}
	}
	if err := checkOwner(c.Owner); err != nil {
		ps = append(ps, o.Problem("owner", "%v", err))
	}
	return ps
}

// Inputs implements [Inputter].
func (c *Copy) Inputs() []string { return []string{path.Clean(c.From)} }

// Apply implements [Step].
func (c *Copy) Apply(ctx context.Context, g Guest, src *Source) error {
	return g.Put(ctx, func(t *tar.Writer) error {
		from := path.Clean(c.From)
		sent := map[string]bool{}
		err := src.walk(from, func(in *inputFile) error {
			sent[in.path] = true
			h := in.header()
			switch rest, _ := strings.CutPrefix(strings.TrimPrefix(in.path, from), "/"); {
			case in.path == from && h.Typeflag != tar.TypeDir && strings.HasSuffix(c.To, "/"):
				h.Name = path.Join(c.To, path.Base(from))
			case from == ".":
				h.Name = path.Join(c.To, in.path)
			default:
				h.Name = path.Join(c.To, rest)
			}
			setOwner(h, c.Owner)
			if c.Mode != "" && h.Typeflag == tar.TypeReg {
				mode, err := parseMode(c.Mode, "")
				if err != nil {
					return err
				}
				h.Mode = int64(mode)
			}
			return in.send(ctx, t, h)
		})
		if err != nil {
			return err
		}
		return src.missing(from, sent)
	})
}
