package etc

import (
	"io/fs"
	"math"
	"strconv"
	"strings"
)

// kernelLine is what the kernel's command line says of mounts to the system that has
// started (systemd-fstab-generator(8), systemd-debug-generator(8)). What begins with rd.
// is for the initrd alone.
type kernelLine struct {
	noFstab bool
	state   bool    // /var is empty at each start
	mounts  []Mount // beside those of fstab
	masked  []string
	wanted  []string
}

// fromKernel is where mounts come from that the kernel's command line asks for.
const fromKernel = "the kernel's command line"

// firstWithMountExtra is the version of systemd that begins to know systemd.mount-extra=.
const firstWithMountExtra = 254

// parseKernelLine reads a command line as a systemd of that version does.
func parseKernelLine(line string, version int) (k kernelLine) {
	for _, word := range KernelWords(line) {
		key, value, isSet := strings.Cut(word, "=")
		is, isBool := ParseBool(value)
		switch key {
		case "fstab":
			if isBool || !isSet {
				k.noFstab = isBool && !is
			}
		case "systemd.volatile": // "yes" and "overlay" are for the initrd
			if isBool || !isSet || value == "overlay" || value == "state" {
				k.state = value == "state"
			}
		case "systemd.mount-extra":
			if m, ok := parseMountExtra(value); ok && version >= firstWithMountExtra {
				k.mounts = append(k.mounts, m)
			}
		case "systemd.mask":
			k.masked = append(k.masked, mangle(value, "service"))
		case "systemd.wants":
			k.wanted = append(k.wanted, mangle(value, "service"))
		}
	}
	return k
}

// KernelWords splits the kernel's command line at white space that is not in quotes, as
// systemd does. A backslash is a byte like any other.
func KernelWords(line string) (list []string) {
	var word strings.Builder
	var quote rune
	began := false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, began = c, true
		case quote == 0 && strings.ContainsRune(blank, c):
			if began {
				list = append(list, word.String())
			}
			word.Reset()
			began = false
		default:
			word.WriteRune(c)
			began = true
		}
	}
	if began {
		list = append(list, word.String())
	}
	return list
}

// parseMountExtra reads WHAT:WHERE[:TYPE[:OPTIONS]], in which a colon is written as \072.
func parseMountExtra(value string) (m Mount, ok bool) {
	fields := strings.Split(value, ":")
	for n := range fields {
		if fields[n], ok = unescapeC(fields[n]); !ok {
			return m, false
		}
	}
	if len(fields) < 2 || len(fields) > 4 {
		return m, false
	}
	m = Mount{What: fields[0], Place: fields[1], From: fromKernel}
	if len(fields) > 2 {
		m.FS = fields[2]
	}
	if len(fields) > 3 && fields[3] != "" {
		m.Options = strings.Split(fields[3], ",")
	}
	return m, true
}

// unescapeC undoes escapes as C has them, and \s for a space.
func unescapeC(s string) (text string, ok bool) {
	var b strings.Builder
	for s != "" {
		if len(s) > 1 && s[0] == '\\' && strings.IndexByte(`s"'`, s[1]) >= 0 {
			b.WriteByte(map[byte]byte{'s': ' ', '"': '"', '\'': '\''}[s[1]])
			s = s[2:]
			continue
		}
		c, wide, rest, err := strconv.UnquoteChar(s, 0)
		if err != nil || c == 0 {
			return "", false
		}
		switch {
		case s[0] != '\\': // bytes that are no text, too
			b.WriteString(s[:len(s)-len(rest)])
		case wide:
			b.WriteRune(c)
		default:
			b.WriteByte(byte(c))
		}
		s = rest
	}
	return b.String(), true
}

// ParseBool reads one of systemd's words for true or false.
func ParseBool(value string) (is, ok bool) {
	switch strings.ToLower(value) {
	case "1", "yes", "y", "true", "t", "on":
		return true, true
	case "0", "no", "n", "false", "f", "off":
		return false, true
	}
	return false, false
}

// libraryDirs are where distributions have systemd's own library.
var libraryDirs = []string{
	"usr/lib/systemd", "usr/lib64/systemd", "usr/lib/x86_64-linux-gnu/systemd", "usr/lib/aarch64-linux-gnu/systemd", "lib/systemd",
}

// SystemdVersion is that of the system's systemd, which is in the name of its library. If
// that is not there, it is one that is later than all.
func SystemdVersion(tree fs.FS) int {
	for _, dir := range libraryDirs {
		names, _ := ReadDir(tree, dir, 10_000)
		for _, name := range names {
			rest, ok := strings.CutPrefix(name, "libsystemd-shared-")
			number := rest[:len(rest)-len(strings.TrimLeft(rest, "0123456789"))] // of 257.1-2.fc42.so, 257
			if n, err := strconv.Atoi(number); ok && err == nil {
				return n
			}
		}
	}
	return math.MaxInt
}
