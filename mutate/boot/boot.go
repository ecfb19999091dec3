// Package boot reads what the boot loader of an image starts: loader entries
// (Boot Loader Specification) and GRUB's configuration.
//
// All it reads may be damaged, or made to deceive: it takes what it
// understands, from files of no more than [maxFile] bytes, and has nothing
// executed. Trees come as [fs.FS], whose symbolic links must lead nowhere else.
package boot

import (
	"io/fs"
	"path"
	"strings"
	"unicode"

	"github.com/imgmut/imgmut/mutate/etc"
)

// maxFile is the largest file that is read, in bytes.
const maxFile = 1 << 20

// maxCommandLine is the most that a kernel takes, in bytes (COMMAND_LINE_SIZE).
const maxCommandLine = 4096

// CommandLine gives the command line that the kernel of the image has when it
// starts by itself, empty if no file says. The trees are those of the image's
// volumes: its root, with what is mounted in it, and then those that are not, as
// the EFI system partition may be.
func CommandLine(trees ...fs.FS) string {
	for _, tree := range trees {
		// Where it is, new entries are made of it (kernel-install(8)).
		if line := clean(read(tree, "etc/kernel/cmdline")); line != "" {
			return line
		}
	}
	for _, options := range []func(fs.FS, string) string{entryOptions, grubOptions} {
		for _, tree := range trees {
			for _, dir := range []string{"boot", ".", "efi", "boot/efi"} {
				if line := clean(options(tree, dir)); line != "" {
					return line
				}
			}
		}
	}
	return ""
}

// clean makes one line of words that a kernel can take.
func clean(s string) string {
	between := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }
	line := strings.Join(strings.FieldsFunc(strings.ToValidUTF8(s, ""), between), " ")
	if len(line) > maxCommandLine {
		return ""
	}
	return line
}

// read gives the text of a regular file, empty if there is none.
func read(tree fs.FS, name string) string { return etc.ReadUpTo(tree, path.Clean(name), maxFile) }

// expand puts in what GRUB knows of variables: those of its environment block.
// What becomes longer than a kernel takes is no command line: a long variable
// could be named many times.
func expand(s string, environment map[string]string) string {
	var words []string
	length := 0
	for _, w := range strings.Fields(s) {
		if name, ok := strings.CutPrefix(w, "$"); ok {
			w = environment[strings.Trim(name, "{}")]
		}
		if w != "" && !strings.Contains(w, "$") {
			words = append(words, w)
			length += len(w) + len(" ")
		}
		if length > maxCommandLine+len(" ") {
			return ""
		}
	}
	return strings.Join(words, " ")
}

// grubEnvironment reads GRUB's environment block (grub-editenv(1)).
func grubEnvironment(tree fs.FS, dir string) map[string]string {
	variables := map[string]string{}
	for _, name := range []string{"grub2", "grub"} {
		for line := range strings.Lines(read(tree, path.Join(dir, name, "grubenv"))) {
			if name, value, ok := strings.Cut(strings.TrimRight(line, "\n"), "="); ok && !strings.HasPrefix(name, "#") {
				variables[name] = value
			}
		}
	}
	return variables
}
