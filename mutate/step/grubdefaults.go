package step

import (
	"context"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// What GRUB's menu is made of are files of a shell: /etc/default/grub, and then, with
// Debian and its kin, those in /etc/default/grub.d, of which a later one counts. Two
// variables of them are command lines: one for all entries, and one for those that are
// not for recovery.

const grubDefaults = "etc/default/grub"

// cmdlineLine is an assignment of such a variable.
var cmdlineLine = lazyregexp.New(`^(\s*(?:export\s+)?)(GRUB_CMDLINE_LINUX|GRUB_CMDLINE_LINUX_DEFAULT)=(.*?)\s*$`)

// editDefaults changes them. found says that the image has any.
func (k *KernelArgs) editDefaults(ctx context.Context, g Guest) (found bool, err error) {
	files := []string{}
	if etc.Exists(g.Files(), grubDefaults) {
		files = append(files, grubDefaults)
	}
	list, err := fs.Glob(g.Files(), grubDefaults+".d/*.cfg")
	if err != nil {
		return false, err
	}
	if files = append(files, list...); len(files) == 0 {
		return false, nil
	}
	last := files[0] // that says what all entries have
	for _, name := range files {
		text := etc.ReadUpTo(g.Files(), name, maxDefaults)
		for line := range strings.Lines(text) {
			if m := cmdlineLine().FindStringSubmatch(line); m != nil && m[2] == "GRUB_CMDLINE_LINUX" {
				last = name
			}
		}
	}
	for _, name := range files {
		edit := func(text string) (string, error) { return k.editDefault(text, name == last) }
		if err := editFile(ctx, g, path.Join("/", name), edit); err != nil {
			return true, err
		}
	}
	return true, nil
}

// maxDefaults is more than such a file has, in bytes.
const maxDefaults = 1 << 20

// editDefault changes one of the files. The last of them gets what is new, in its last
// assignment for all entries, which it gets if it has none.
func (k *KernelArgs) editDefault(text string, isLast bool) (string, error) {
	var lines []string
	last := -1
	for line := range strings.Lines(text) {
		if m := cmdlineLine().FindStringSubmatch(line); m != nil && m[2] == "GRUB_CMDLINE_LINUX" && isLast {
			last = len(lines)
		}
		lines = append(lines, line)
	}
	for n, line := range lines {
		m := cmdlineLine().FindStringSubmatch(line)
		if m == nil {
			continue
		}
		value, comment, err := shellValue(m[3])
		if err != nil {
			return "", err
		}
		edited := k.without(value)
		if n == last {
			edited = k.edit(value)
		}
		if edited != strings.Join(strings.Fields(value), " ") {
			lines[n] = m[1] + m[2] + `="` + edited + `"` + comment + "\n"
		}
	}
	if words := k.edit(""); isLast && last < 0 && words != "" {
		if len(lines) > 0 && !strings.HasSuffix(lines[len(lines)-1], "\n") {
			lines[len(lines)-1] += "\n"
		}
		lines = append(lines, `GRUB_CMDLINE_LINUX="`+words+`"`+"\n")
	}
	return strings.Join(lines, ""), nil
}

// shellValue gives what a shell's variable is set to, as it stands between double quotes,
// and the comment behind it.
func shellValue(s string) (value, comment string, err error) {
	rest := ""
	switch {
	case strings.HasPrefix(s, `"`):
		end := 1
		for end < len(s) && s[end] != '"' {
			if s[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(s) {
			return "", "", fmt.Errorf("it goes on in another line: %s", s)
		}
		value, rest = s[1:end], s[end+1:]
	case strings.HasPrefix(s, `'`):
		end := strings.IndexByte(s[1:], '\'')
		if end < 0 {
			return "", "", fmt.Errorf("it goes on in another line: %s", s)
		}
		value, rest = s[1:end+1], s[end+2:]
		if strings.ContainsAny(value, "\"$`\\") {
			return "", "", fmt.Errorf("imgmut does not change what is quoted so: %s", s)
		}
	default:
		end := strings.IndexAny(s, " \t;#")
		if end < 0 {
			end = len(s)
		}
		value, rest = s[:end], s[end:]
	}
	if t := strings.TrimSpace(rest); t != "" && !strings.HasPrefix(t, "#") {
		return "", "", fmt.Errorf("imgmut does not change what is written so: %s", s)
	}
	return value, rest, nil
}
