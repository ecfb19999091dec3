package step

import (
	"archive/tar"
	"context"
	"io"
	"strings"

	"github.com/imgmut/imgmut/recipes"
)

var writeKind = Kind{
	Name:    "write",
	Version: 1,
	Summary: "write one file with content from the recipe",
	Example: `
- write:
    path: /etc/motd
    content: "hello\n"
    mode: "0644"
    owner: root:adm
`,
	New: func() Step { return new(Write) },
}

// Write writes one regular file, in place of what is at Path: also in place of
// a symbolic link there, not through it. Directories that are missing above it
// are made.
type Write struct {
	Path    string `yaml:"path" json:"path"`
	Content string `yaml:"content" json:"content"`
	Mode    string `yaml:"mode" json:"mode,omitempty"`   // octal; "0644" if empty
	Owner   string `yaml:"owner" json:"owner,omitempty"` // root:root if empty
}

// Validate implements [Step].
func (w *Write) Validate(o recipes.Options) recipes.Problems {
	var ps recipes.Problems
	if err := checkTarget(w.Path); err != nil {
		ps = append(ps, o.Problem("path", "%v", err))
	} else if strings.HasSuffix(w.Path, "/") {
		ps = append(ps, o.Problem("path", "%q: want the path of a file, without a slash at its end", w.Path))
	}
	if _, err := parseMode(w.Mode, "0644"); err != nil {
		ps = append(ps, o.Problem("mode", "%v", err))
	}
	if err := checkOwner(w.Owner); err != nil {
		ps = append(ps, o.Problem("owner", "%v", err))
	}
	return ps
}

// Apply implements [Step].
func (w *Write) Apply(ctx context.Context, g Guest, _ *Source) error {
	mode, err := parseMode(w.Mode, "0644")
	if err != nil {
		return err
	}
	return g.Put(ctx, func(t *tar.Writer) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: w.Path, Mode: int64(mode), Size: int64(len(w.Content))}
		setOwner(h, w.Owner)
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(t, w.Content)
		return err
	})
}
