package recipes

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

var hexDigits = lazyregexp.New(`^[0-9a-fA-F]+$`)

// imageFiles are how the names of image files end.
var imageFiles = []string{".raw", ".img", ".qcow2", ".vmdk", ".vhd", ".vhdx", ".vdi", ".gz", ".bz2", ".xz", ".zst"}

func isImageFile(s string) bool { return slices.Contains(imageFiles, filepath.Ext(s)) }

func (b *builder) base(n *node) {
	base := &b.r.Base
	base.Pos = n.pos
	if n.kind != mapping {
		s, ok := b.text(n, "base", "a name, a path or a mapping")
		switch {
		case !ok:
		case IsURL(s):
			b.baseURL(n, s)
		case strings.Contains(s, "/") || isImageFile(s):
			b.basePath(n, "base", s)
		case CheckName(s) != nil:
			b.add(n.pos, "base", "a file beside the recipe is written ./NAME", "%q: %v", shorten(s), CheckName(s))
		default:
			base.Name = s
		}
		return
	}
	var m struct {
		Path         string   `yaml:"path"`
		URL          string   `yaml:"url"`
		SHA256       string   `yaml:"sha256"`
		SHA512       string   `yaml:"sha512"`
		Sums         string   `yaml:"sums"`
		Keyring      string   `yaml:"keyring"`
		MaxAge       Duration `yaml:"max-age"`
		AllowBacking bool     `yaml:"allow-backing"`
		Format       string   `yaml:"format"`
	}
	fits := b.field(n, "base", &m)
	base.SHA256 = b.sum(n, "sha256", m.SHA256, 64)
	base.SHA512 = b.sum(n, "sha512", m.SHA512, 128)
	base.AllowBacking, base.MaxAge, base.Sums = m.AllowBacking, m.MaxAge.Duration(), m.Sums
	if base.Keyring = m.Keyring; m.Keyring != "" && !filepath.IsAbs(m.Keyring) {
		base.Keyring = filepath.Join(b.r.Dir, m.Keyring)
	}
	if e, ok := n.get("format"); ok && e.value.isText() && m.Format != "raw" {
		b.add(e.value.pos, "base.format", "what else it is, its bytes say", "%q: want raw, or leave it out", shorten(m.Format))
	}
	base.Raw = m.Format == "raw"
	path, hasPath := n.get("path")
	_, hasURL := n.get("url")
	switch {
	case hasURL && hasPath:
		b.add(path.pos, "base.path", "", "there is base.url as well, and only one of them can be the base")
	case hasURL && fits:
		b.baseURL(n, m.URL)
	case hasPath && path.value.isText():
		b.basePath(path.value, "base.path", m.Path)
	case !hasPath && !hasURL:
		b.add(n.pos, "base.path", "", "missing")
	}
	for _, key := range []string{"sums", "keyring", "max-age"} {
		if e, ok := n.get(key); ok && !hasURL {
			b.add(e.pos, at("base", key), "", "it is about what is fetched by base.url, and there is none")
		}
	}
}

// IsURL says whether the text of a base is a URL, not a name or a path.
func IsURL(s string) bool { return strings.Contains(s, "://") || strings.HasPrefix(s, "oci:") }

// baseURL takes the URL of a base, which n is or has.
func (b *builder) baseURL(n *node, s string) {
	b.r.Base.URL = s
	for _, f := range b.r.Base.faults() {
		path, pos := "base", n.pos
		if e, ok := n.get(f.key); ok {
			path, pos = at("base", f.key), e.value.pos
		}
		b.add(pos, path, f.hint, "%s", f.text)
	}
}

// baseFault is something that does not fit in a base that is fetched.
type baseFault struct{ key, hint, text string }

// CheckFetched says what does not fit in a base that is fetched.
func (b Base) CheckFetched() error {
	list := b.faults()
	if len(list) == 0 {
		return nil
	}
	p := newProblem("", Pos{}, list[0].key, "%s", list[0].text)
	p.Hint = list[0].hint
	return p
}

func (b Base) faults() (list []baseFault) {
	bad := func(key, hint, text string) { list = append(list, baseFault{key, hint, text}) }
	is := func(s string, schemes ...string) bool {
		u, err := url.Parse(s)
		return err == nil && slices.Contains(schemes, u.Scheme) && (u.Host != "" || u.Opaque != "")
	}
	oci, pinned := is(b.URL, "oci"), b.SHA256+b.SHA512 != ""
	for key, s := range map[string]string{"url": b.URL, "sums": b.Sums} {
		if u, err := url.Parse(s); err == nil && u.User != nil {
			bad(key, "fetch it by hand, and name its path", "it has a user or a password, which would be kept with the base")
		}
	}
	switch {
	case !oci && !is(b.URL, "http", "https"):
		bad("url", "", shorten(b.URL)+": want a URL of http or https, or oci:HOST/NAME:TAG")
	case oci && pinned:
		bad("url", "name it by its digest: oci:HOST/NAME@sha256:…", "what the file must be says the registry")
	case !oci && !pinned && b.Sums == "":
		bad("", "base: {url: …, sha256: …}, or sums with the URL of its list of sums", "nothing says what is to be fetched")
	}
	switch {
	case b.Sums == "":
	case !is(b.Sums, "http", "https"):
		bad("sums", "", shorten(b.Sums)+": want a URL of http or https")
	case pinned || oci:
		bad("sums", "", "what the file must be is said already")
	case b.Keyring == "" && !is(b.Sums, "https"):
		bad("sums", "say with which keyring it is signed, as keyring: ./keys.gpg, or use https", "everybody on the way can change it")
	}
	if b.Keyring != "" && b.Sums == "" {
		bad("keyring", "", "it is for a list of sums, and none is named")
	}
	if b.MaxAge != 0 && pinned {
		bad("max-age", "", "a file with that sum is never another")
	}
	if b.AllowBacking {
		bad("allow-backing", "", "nothing is beside what is fetched")
	}
	return list
}

// sum is the value of a key of base, which is so many hexadecimal digits.
func (b *builder) sum(n *node, key, s string, digits int) string {
	if e, ok := n.get(key); ok && e.value.isText() && (len(s) != digits || !hexDigits().MatchString(s)) {
		b.add(e.value.pos, at("base", key), "", "%q: want %d hexadecimal digits", shorten(s), digits)
	}
	return strings.ToLower(s)
}

func (b *builder) basePath(n *node, path, s string) {
	if s == "" || strings.ContainsRune(s, 0) {
		b.add(n.pos, path, "", "%q is no path", shorten(s))
		return
	}
	if IsURL(s) {
		b.add(n.pos, path, "write url: for path:", "%q is a URL", shorten(s))
		return
	}
	if strings.HasPrefix(s, "~") {
		b.add(n.pos, path, "write the whole path", "%q: no shell expands the ~ here", shorten(s))
		return
	}
	if !filepath.IsAbs(s) {
		s = filepath.Join(b.r.Dir, s)
	}
	b.r.Base.Path = filepath.Clean(s)
}
