package boot

import (
	"cmp"
	"encoding/binary"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// version says which kernel an entry starts: by what the kernel says of itself,
// by its name, and only then by the entry, which people write.
func (c *chain) version(e Entry) string {
	if e.Kernel == "" {
		return e.Version // of the program itself
	}
	p, file, ok := c.find(e.Kernel)
	if ok {
		if v := headerVersion(p, file); v != "" {
			return v
		}
	}
	said := strings.Fields(e.Version)
	if len(said) != 1 || !release().MatchString(said[0]) {
		said = []string{""}
	}
	return cmp.Or(nameVersion(e.Kernel), said[0])
}

// release is what uname -r may be: it names a directory of modules.
var release = lazyregexp.New(`^[0-9]+\.[0-9]+[0-9A-Za-z._+~-]{0,100}$`)

// nameVersion reads the version off the name of a kernel, or of the directory it
// is in, as kernel-install(8) and packages lay them out.
func nameVersion(name string) string {
	base, dir := path.Base(name), path.Base(path.Dir(name))
	if kernel, version, ok := strings.Cut(base, "-"); ok && kernelNames().MatchString(kernel) {
		for ; ok; _, version, ok = strings.Cut(version, "-") { // there may be a machine-id or a system's name before it
			if release().MatchString(version) {
				return version
			}
		}
	}
	if release().MatchString(dir) {
		return dir
	}
	return ""
}

// kernelNames are what kernels are called before their version.
var kernelNames = lazyregexp.New(`^(vmlinu[xz]|kernel|linux|b?z?[Ii]mage|Image)$`)

// headerVersion reads what a kernel for x86 says of itself.
func headerVersion(p Place, file string) string {
	f, err := p.FS.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return ""
	}
	head := make([]byte, maxHeader)
	n, _ := io.ReadFull(f, head) // a short one is what there is
	return versionInHeader(head[:n])
}

// maxHeader is enough of a kernel for its version to be in it, in bytes.
const maxHeader = 32 << 10

// versionInHeader finds the version, as uname -r will give it, in the first bytes
// of a kernel for x86: at 0x20e is where it stands (The Linux/x86 Boot Protocol).
func versionInHeader(head []byte) string {
	if len(head) < 0x210 || string(head[0x202:0x206]) != "HdrS" {
		return ""
	}
	at := int(binary.LittleEndian.Uint16(head[0x20e:])) + 0x200
	if at >= len(head) {
		return ""
	}
	return firstRelease(string(head[at:min(at+128, len(head))]))
}

// firstRelease gives the first word of a text that ends with a NUL.
func firstRelease(text string) string {
	text, _, _ = strings.Cut(text, "\x00")
	word, _, _ := strings.Cut(strings.TrimSpace(text), " ")
	if !release().MatchString(word) {
		return ""
	}
	return word
}

// CompareVersions compares two versions, or names that have one: numbers in them as
// numbers, and the rest as text. A tilde comes before the end, as in packages.
func CompareVersions(a, b string) int {
	for a != "" && b != "" {
		x, restA := chunk(a)
		y, restB := chunk(b)
		n, errX := strconv.ParseUint(x, 10, 64)
		m, errY := strconv.ParseUint(y, 10, 64)
		c := cmp.Compare(x, y)
		if errX == nil && errY == nil && n != m {
			c = cmp.Compare(n, m)
		}
		if c != 0 {
			return tilde(x, y, c)
		}
		a, b = restA, restB
	}
	return tilde(a, b, cmp.Compare(len(a), len(b)))
}

// tilde corrects the order of two texts if one of them begins with a tilde.
func tilde(a, b string, order int) int {
	x, y := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~")
	if x == y {
		return order
	}
	return boolean(y) - boolean(x)
}

// chunk cuts off the digits, or what is none, at the start of a text.
func chunk(s string) (first, rest string) {
	digit := func(i int) bool { return '0' <= s[i] && s[i] <= '9' }
	i := 1
	for i < len(s) && digit(i) == digit(0) {
		i++
	}
	return s[:i], s[i:]
}
