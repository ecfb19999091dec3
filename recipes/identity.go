package recipes

import "github.com/imgmut/imgmut/mutate/lazyregexp"

// keep is the one thing that identity.types says.
const keep = "keep"

var (
	// labelTemplate is what the labels of filesystems may be made of: what needs no
	// quotes and escapes in the files that name a volume by its label.
	labelTemplate = lazyregexp.New(`^(?:[A-Za-z0-9._-]|\{name\}|\{label\})+$`)
	labelOfBase   = lazyregexp.New(`\{label\}`)
)

func (b *builder) identity(n *node) {
	var m struct {
		Filesystems bool   `yaml:"filesystems"`
		Labels      string `yaml:"labels"`
		Types       string `yaml:"types"`
	}
	fits := b.field(n, "identity", &m)
	b.r.Identity = Identity{Filesystems: m.Filesystems, Labels: m.Labels, KeepTypes: m.Types == keep, Pos: n.pos}
	if !fits {
		return
	}
	if e, ok := n.get("labels"); ok && !labelTemplate().MatchString(m.Labels) {
		b.add(e.value.pos, "identity.labels", "", "%q: want letters, digits and . _ - with {name} and {label}, the image's and the base's",
			shorten(m.Labels))
	} else if ok && !labelOfBase().MatchString(m.Labels) {
		b.add(e.value.pos, "identity.labels", "", "%q: want {label} in it, or two filesystems would have one label", shorten(m.Labels))
	}
	if e, ok := n.get("types"); ok && m.Types != keep {
		b.add(e.value.pos, "identity.types", "leave it out for the types by which systemd finds them", "%q: want %s",
			shorten(m.Types), keep)
	}
}
