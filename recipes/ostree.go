package recipes

import "slices"

// Ostree says how steps change a system that is a deployment of ostree, as those of bootc
// are.
type Ostree struct {
	Mode string // [OstreeEtc] or [OstreeCommit]; "" is the first
	Keep int    // how many deployments stay in mode commit; 0 is two
	Pos  Pos    // of the key; the zero value if there is none
}

// The modes. In the first a step finds the system as it finds itself when it has started:
// /etc and /var can be changed, /usr cannot. In the second all can be: what the steps leave
// becomes a new commit, and a new deployment.
const (
	OstreeEtc    = "etc"
	OstreeCommit = "commit"
)

// maxKeep is how many deployments may be asked for: each has a directory tree of its own.
const maxKeep = 16

// OstreeProblem is a problem with ostree, for what Parse cannot judge.
func (r *Recipe) OstreeProblem(hint, format string, args ...any) Problem {
	p := newProblem(r.File, r.Ostree.Pos, "ostree", format, args...)
	p.Hint = hint
	return p
}

func (b *builder) ostree(n *node) {
	o := &b.r.Ostree
	o.Pos = n.pos
	if n.kind != mapping {
		b.wrongType(n, "ostree", "a mapping with mode", "write ostree: {mode: commit}")
		return
	}
	var m struct {
		Mode string `yaml:"mode"`
		Keep int    `yaml:"keep"`
	}
	b.field(n, "ostree", &m)
	o.Mode, o.Keep = m.Mode, m.Keep
	mode, hasMode := n.get("mode")
	keep, hasKeep := n.get("keep")
	switch {
	case !hasMode:
		b.add(n.pos, "ostree.mode", "", "missing")
	case mode.value.isText() && !slices.Contains([]string{OstreeEtc, OstreeCommit}, m.Mode):
		b.add(mode.value.pos, "ostree.mode", "", "%q: want etc (steps change /etc and /var) or commit (and /usr)", shorten(m.Mode))
	}
	switch {
	case !hasKeep || keep.value.kind != number:
	case m.Keep < 1 || m.Keep > maxKeep:
		b.add(keep.value.pos, "ostree.keep", "", "want 1 to %d deployments", maxKeep)
	case m.Mode == OstreeEtc:
		b.add(keep.pos, "ostree.keep", "leave it out", "in mode etc no deployment is made, and all stay")
	}
}
