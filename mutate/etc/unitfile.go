package etc

import (
	"path"
	"strconv"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// setting is one assignment of a unit file: its key with the section, as
// "Mount.What", and its value.
type setting struct{ key, value string }

// parseUnit reads the assignments of a unit file (systemd.syntax(7)). It ends at a
// line that only begins like the head of a section: ok is false then.
func parseUnit(text string) (settings []setting, ok bool) {
	section := ""
	var joined strings.Builder // of lines that go on
	text = strings.TrimPrefix(text, "\ufeff")
	for line := range strings.SplitSeq(lineEnds.Replace(text), "\n") {
		line = strings.TrimLeft(line, blank)
		if line != "" && strings.IndexByte("#;", line[0]) >= 0 {
			continue
		}
		if slashes := len(line) - len(strings.TrimRight(line, `\`)); slashes%2 == 1 {
			joined.WriteString(line[:len(line)-1] + " ")
			continue
		}
		if joined.Len() > 0 {
			joined.WriteString(line)
			line = joined.String()
			joined.Reset()
		}
		if settings, section, ok = parseLine(settings, section, line); !ok {
			return settings, false
		}
	}
	settings, _, ok = parseLine(settings, section, joined.String())
	return settings, ok
}

func parseLine(settings []setting, section, line string) ([]setting, string, bool) {
	line = strings.Trim(line, blank)
	if head, ok := strings.CutPrefix(line, "["); ok {
		head, ok = strings.CutSuffix(head, "]")
		return settings, head, ok
	}
	if key, value, ok := strings.Cut(line, "="); ok {
		if key = section + "." + strings.TrimRight(key, blank); meaningful(key) {
			settings = append(settings, setting{key, strings.TrimLeft(value, blank)})
		}
	}
	return settings, section, true
}

const blank = " \t\n\r"

var lineEnds = strings.NewReplacer("\r\n", "\n", "\n\r", "\n", "\r", "\n", "\x00", "\n")

// words splits a value at white space that is not in quotes. A backslash takes
// the next byte as it is.
func words(value string) []string {
	var list []string
	var word []byte
	var quote byte
	began := false
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case c == '\\' && i+1 < len(value):
			i++
			word, began = append(word, value[i]), true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word = append(word, c)
		case c == '"' || c == '\'':
			quote, began = c, true
		case strings.IndexByte(blank, c) >= 0:
			if began {
				list = append(list, string(word))
			}
			word, began = nil, false
		default:
			word, began = append(word, c), true
		}
	}
	if began && quote == 0 { // systemd takes no word whose quotes do not end
		list = append(list, string(word))
	}
	return list
}

// expand puts in what a specifier of systemd.unit(5) stands for, where the unit's
// name or the manual says it. The others stay as they are written.
func expand(value, name string) string {
	if strings.IndexByte(value, '%') < 0 {
		return value
	}
	prefix, instance, suffix, _ := splitUnit(name)
	return specifier().ReplaceAllStringFunc(value, func(s string) string {
		switch s[1] {
		case '%':
			return "%"
		case 'n':
			return name
		case 'N':
			return strings.TrimSuffix(name, "."+suffix)
		case 'p':
			return prefix
		case 'P':
			return unescapeName(prefix)
		case 'i':
			return instance
		case 'I':
			return unescapeName(instance)
		case 'j', 'J':
			last := prefix[strings.LastIndexByte(prefix, '-')+1:]
			if s[1] == 'J' {
				last = unescapeName(last)
			}
			return last
		case 'f':
			if instance == "" {
				instance = prefix
			}
			return path.Clean("/" + unescapeName(instance))
		}
		if place, ok := standardPlaces[s[1]]; ok {
			return place
		}
		return s
	})
}

var (
	specifier = lazyregexp.New(`%[%A-Za-z]`)
	// standardPlaces are the directories of the system that have a specifier.
	standardPlaces = map[byte]string{
		'C': "/var/cache", 'E': "/etc", 'L': "/var/log", 'S': "/var/lib", 'T': "/tmp", 'V': "/var/tmp", 'h': "/root", 't': "/run",
	}
	hexByte = lazyregexp.New(`\\x[0-9a-fA-F]{2}`)
)

func unhexByte(s string) string {
	n, _ := strconv.ParseUint(s[2:], 16, 8) // hexByte is of two digits
	return string([]byte{byte(n)})
}

// yes says whether a value is one of systemd's words for true.
func yes(value string) bool {
	is, _ := ParseBool(value)
	return is
}
