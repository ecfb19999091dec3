package lock

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/printable"
)

// Holders describes the processes that hold the lock which is the file path,
// as far as this process can see them.
func Holders(path string) []string {
	file, err := os.Stat(path)
	if err != nil {
		return nil
	}
	locks, err := os.ReadFile("/proc/locks") // see proc(5)
	if err != nil {
		return nil
	}
	var who []string
	for line := range strings.Lines(string(locks)) {
		f := strings.Fields(line)
		if len(f) < 6 || f[1] != "FLOCK" {
			continue
		}
		if pid := f[4]; hasOpen(pid, file) {
			who = append(who, fmt.Sprintf("%s (process %s)", commandLine(pid), pid))
		}
	}
	slices.Sort(who)
	return slices.Compact(who)
}

// hasOpen says whether a process has a file open.
func hasOpen(pid string, file os.FileInfo) bool {
	open, _ := filepath.Glob("/proc/" + pid + "/fd/*")
	return slices.ContainsFunc(open, func(fd string) bool {
		fi, err := os.Stat(fd)
		return err == nil && os.SameFile(fi, file)
	})
}

// commandLine is how a process was started, in a form fit for a terminal.
func commandLine(pid string) string {
	b, _ := os.ReadFile("/proc/" + pid + "/cmdline")
	name, args, _ := bytes.Cut(b, []byte{0})
	line := filepath.Base(string(name)) + " " + string(bytes.ReplaceAll(args, []byte{0}, []byte(" ")))
	line = strings.TrimSpace(printable.Line(line))
	if r := []rune(line); len(r) > 60 {
		line = string(r[:60]) + "…"
	}
	return line
}
