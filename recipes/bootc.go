package recipes

import (
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// Bootc says which container image the system of the disk becomes, before any step runs.
type Bootc struct {
	Image ContainerImage // no transport: the recipe asks for none
	Keep  int            // how many deployments stay; 0 is two: there is one to go back to
	// Target is the image of a registry that the booted system is updated from, as
	// HOST/NAME:TAG; empty leaves that to Image.
	Target string
	// MaxAge is for how long the image that a tag was last found to be is good enough; 0 is
	// to ask each time.
	MaxAge Duration
	Pos    Pos
}

// ContainerImage names a container image, as podman, skopeo and bootc do
// (containers-transports(5)).
type ContainerImage struct {
	Transport string // docker, oci, oci-archive, docker-archive, containers-storage
	Name      string // HOST/NAME, or a path: cleaned, and joined with Dir if it was relative
	Tag       string // or empty
	Digest    string // of its manifest, or of the index that has it, as sha256:…; or empty
}

// Moves says whether the image may be another one tomorrow.
func (c ContainerImage) Moves() bool { return c.Digest == "" }

const (
	imageForms = "docker://HOST/NAME:TAG, containers-storage:NAME, oci:DIR, oci-archive:FILE or docker-archive:FILE"
)

var (
	registryName = lazyregexp.New(`^(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?` +
		`/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*$`)
	storedName = lazyregexp.New(`^[A-Za-z0-9\[][A-Za-z0-9._:/@+\[\]-]{0,512}$`)
	imageTag   = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
	imageSum   = lazyregexp.New(`^sha256:[0-9a-f]{64}$`)
)

// BootcProblem is a problem with a field of bootc, for what Parse cannot judge.
func (r *Recipe) BootcProblem(field, hint, format string, args ...any) Problem {
	p := newProblem(r.File, r.Bootc.Pos, at("bootc", field), format, args...)
	p.Hint = hint
	return p
}

// BootcPlace is where the recipe says which container image it wants, for errors about that.
func (r *Recipe) BootcPlace() string { return placeOf(r.BootcProblem("", "", "")) }

func (b *builder) bootc(n *node) {
	c := &b.r.Bootc
	c.Pos = n.pos
	if n.kind != mapping {
		b.wrongType(n, "bootc", "a mapping with image", "write bootc: {image: docker://HOST/NAME:TAG}")
		return
	}
	var m struct {
		Image  string   `yaml:"image"`
		Digest string   `yaml:"digest"`
		Keep   int      `yaml:"keep"`
		Target string   `yaml:"target"`
		MaxAge Duration `yaml:"max-age"`
	}
	if !b.field(n, "bootc", &m) {
		return
	}
	value := func(key string) *node {
		if e, ok := n.get(key); ok {
			return e.value
		}
		return n
	}
	problem := func(key, hint, format string, args ...any) {
		b.add(value(key).pos, at("bootc", key), hint, format, args...)
	}
	if _, ok := n.get("image"); !ok {
		problem("image", "write "+imageForms, "missing")
		return
	}
	image, text, hint := parseImage(m.Image)
	if text != "" {
		problem("image", hint, "%q: %s", shorten(m.Image), text)
		return
	}
	if image.isPath() && !filepath.IsAbs(image.Name) {
		image.Name = filepath.Join(b.r.Dir, image.Name)
	}
	switch {
	case m.Digest == "":
	case !imageSum().MatchString(m.Digest):
		problem("digest", "", "%q: want sha256: and 64 hexadecimal digits in small letters", shorten(m.Digest))
	case image.Digest != "" && image.Digest != m.Digest:
		problem("digest", "", "the image itself says %s", image.Digest)
	default:
		image.Digest = m.Digest
	}
	if _, ok := n.get("keep"); ok && (m.Keep < 1 || m.Keep > maxKeep) {
		problem("keep", "", "want 1 to %d deployments", maxKeep)
	}
	if _, ok := n.get("max-age"); ok {
		switch {
		case m.MaxAge <= 0:
			problem("max-age", "", "want a duration above zero")
		case !image.Moves():
			problem("max-age", "", "an image with that digest is never another")
		case image.Transport != "docker":
			problem("max-age", "", "it is about what a registry is asked, and this is none")
		}
	}
	if m.Target != "" {
		target, text, hint := parseImage("docker://" + strings.TrimPrefix(m.Target, "docker://"))
		if text == "" && target.Digest != "" {
			text = "a digest never has an update"
		}
		if text != "" {
			problem("target", hint, "%q: %s", shorten(m.Target), text)
		}
		c.Target = strings.TrimPrefix(m.Target, "docker://")
	}
	c.Image, c.Keep, c.MaxAge = image, m.Keep, m.MaxAge
}

// isPath says whether its name is a path.
func (c ContainerImage) isPath() bool {
	return slices.Contains([]string{"oci", "oci-archive", "docker-archive"}, c.Transport)
}

// parseImage reads the name of a container image. problem is empty if it is one.
func parseImage(s string) (c ContainerImage, problem, hint string) {
	transport, name, ok := strings.Cut(s, ":")
	c.Transport = transport
	switch {
	case strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }):
		return c, "it has characters that cannot be seen", ""
	case !ok || strings.Contains(transport, "/"):
		return c, "nothing says where it is", "write " + imageForms
	case c.isPath():
		c.Name, c.Tag, _ = strings.Cut(name, ":")
		if strings.HasPrefix(name, "//") {
			return c, "it is a path, not a URL", "a registry is written docker://HOST/NAME:TAG"
		}
		if c.Name == "" {
			return c, "it has no path", "write " + imageForms
		}
		if strings.HasPrefix(c.Name, "~") {
			return c, "no shell expands the ~ here", "write the whole path"
		}
		c.Name = filepath.Clean(c.Name)
		return c, "", ""
	case transport == "docker":
		if name, ok = strings.CutPrefix(name, "//"); !ok {
			return c, "it has no host", "write docker://HOST/NAME:TAG"
		}
		if host, _, _ := strings.Cut(name, "/"); host != "localhost" && !strings.ContainsAny(host, ".:") {
			return c, "it has no host", "Docker's own registry is docker.io: docker://docker.io/library/debian:13"
		}
	case transport != "containers-storage":
		return c, "there are no container images of that kind", "write " + imageForms
	}
	name, c.Digest, ok = strings.Cut(name, "@")
	if ok && !imageSum().MatchString(c.Digest) {
		return c, "behind its @ is no sha256: with 64 hexadecimal digits in small letters", ""
	}
	if n := strings.LastIndex(name, ":"); n > strings.LastIndex(name, "/") {
		name, c.Tag = name[:n], name[n+1:]
		if !imageTag().MatchString(c.Tag) {
			return c, "behind its : is no tag", ""
		}
	}
	c.Name = name
	form := registryName()
	if transport != "docker" {
		form = storedName()
	}
	if !form.MatchString(name) {
		return c, "it is no name of an image", "write " + imageForms
	}
	return c, "", ""
}
