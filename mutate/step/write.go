package step

import (
	"archive/tar"
	"cmp"
	"context"
	"io"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/recipes"
)

var writeKind = recipes.Kind[Step]{
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
	v := o.Validation()
	v.Check("path", targetFile(w.Path))
	v.Check("mode", mode(w.Mode))
	v.Check("owner", owner(w.Owner))
	return v.Problems()
}

// Targets implements [Targeter].
func (w *Write) Targets() map[string]string { return map[string]string{"path": w.Path} }

// Apply implements [Step].
func (w *Write) Apply(ctx context.Context, g Guest, src *Source) error {
	mode, err := agent.ParseMode(cmp.Or(w.Mode, "0644"))
	if err != nil {
		return err
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: w.Path, Mode: int64(mode), Size: int64(len(w.Content))}
	agent.SetOwner(h, w.Owner)
	if epoch := src.epoch(); !epoch.IsZero() {
		agent.SetTime(h, epoch)
	}
	return g.Put(ctx, func(t *tar.Writer) error {
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(t, w.Content)
		return err
	})
}
