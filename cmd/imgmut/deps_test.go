package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/imgmut/imgmut"

// ourImports is the architecture in a form that can fail: which of our
// packages each of our packages may import. From top to bottom, imports only
// ever point down.
var ourImports = map[string][]string{
	"cmd/imgmut": {
		"machined", "mutate", "mutate/agent", "mutate/fault", "mutate/guest", "mutate/mount",
		"mutate/printable", "mutate/record", "mutate/reflink", "mutate/store", "mutate/tool", "recipes",
	},
	"mutate": {
		"mutate/agent", "mutate/boot", "mutate/bootc", "mutate/catalog", "mutate/content", "mutate/deliver", "mutate/disk", "mutate/etc",
		"mutate/fault", "mutate/fork", "mutate/format", "mutate/guest", "mutate/mount", "mutate/ostree", "mutate/printable", "mutate/remote",
		"mutate/record", "mutate/reflink", "mutate/statcache", "mutate/step", "mutate/store", "mutate/verify", "recipes",
	},
	"mutate/verify": {
		"mutate/agent", "mutate/boot", "mutate/disk", "mutate/etc", "mutate/fault", "mutate/packages", "mutate/record",
		"mutate/reflink", "mutate/refs", "mutate/tool", "recipes",
	},
	"mutate/ostree": {"mutate/boot", "mutate/etc", "mutate/fault", "mutate/mount", "mutate/tool"},
	"mutate/bootc": {
		"mutate/compress", "mutate/content", "mutate/fault", "mutate/mount", "mutate/ostree", "mutate/tool",
	},
	"mutate/packages": {"mutate/agent", "mutate/etc"},
	"mutate/deliver": {
		"mutate/content", "mutate/fault", "mutate/lock", "mutate/mount", "mutate/record", "mutate/reflink", "mutate/store",
	},
	"mutate/fork": {
		"mutate/disk", "mutate/etc", "mutate/fault", "mutate/gpt", "mutate/mount", "mutate/printable", "mutate/record",
		"mutate/reflink", "mutate/refs", "mutate/tool",
	},
	"mutate/guest":   {"mutate/agent", "mutate/fault", "mutate/mount"},
	"mutate/catalog": {"mutate/fault", "mutate/record", "mutate/store"},
	"mutate/record":  {"mutate/content", "mutate/disk", "mutate/ostree"},
	"mutate/step":    {"mutate/agent", "mutate/boot", "mutate/etc", "mutate/packages", "mutate/record", "recipes"},
	"mutate/store":   {"mutate/fault", "mutate/lock", "mutate/mount", "mutate/reflink", "mutate/tool"},
	"mutate/disk": {
		"mutate/boot", "mutate/content", "mutate/etc", "mutate/fault", "mutate/gpt", "mutate/mount", "mutate/ostree", "mutate/reflink",
		"mutate/tool",
	},
	"mutate/remote":     {"mutate/content", "mutate/fault", "mutate/tool"},
	"mutate/refs":       {"mutate/bootfile", "mutate/etc", "mutate/fault", "mutate/uki"},
	"mutate/bootfile":   {"mutate/compress"},
	"mutate/compress":   {},
	"mutate/format":     {"mutate/compress", "mutate/content", "mutate/fault", "mutate/reflink", "mutate/tool"},
	"mutate/etc":        {},
	"mutate/content":    {"mutate/fault", "mutate/reflink"},
	"mutate/agent":      {"mutate/printable", "mutate/thread"},
	"mutate/boot":       {"mutate/bootfile", "mutate/etc", "mutate/uki"},
	"mutate/fault":      {},
	"mutate/gpt":        {},
	"mutate/lazyregexp": {},
	"mutate/lock":       {"mutate/printable"},
	"mutate/mount":      {"mutate/fault", "mutate/lock", "mutate/thread"},
	"mutate/printable":  {},
	"mutate/reflink":    {},
	"mutate/statcache":  {},
	"mutate/thread":     {},
	"mutate/tool":       {"mutate/fault"},
	"mutate/uki":        {},
	"machined":          {},
	"recipes":           {},
	"fixtures":          {}, // for _test.go files, whose imports are not checked
	"fixtures/bench":    {"machined", "mutate/format", "mutate/gpt", "mutate/reflink", "mutate/store"},
}

// anywhere is what each of them may import: it is like a part of the language.
const anywhere = "mutate/lazyregexp"

// onlyIn keeps a dependency in one place, so that it can be replaced there.
var onlyIn = map[string][]string{
	"github.com/godbus/dbus/":            {"machined"},
	"github.com/coreos/go-systemd/":      {"machined"},
	"go.yaml.in/yaml/v4":                 {"recipes"},
	"github.com/diskfs/go-diskfs/":       {"mutate/disk", "mutate/gpt"},
	"github.com/urfave/cli/":             {"cmd/imgmut"},
	"github.com/cpuguy83/go-md2man/":     {"cmd/imgmut"},
	"github.com/elastic/go-seccomp-bpf/": {"mutate/agent"},
	"github.com/klauspost/compress/":     {"mutate/compress", "mutate/format"},
	"github.com/pierrec/lz4/":            {"mutate/compress"},
	"github.com/ulikunitz/xz/":           {"mutate/bootfile", "mutate/compress"},
	"oras.land/":                         {"mutate/remote"},
	"github.com/opencontainers/":         {"mutate/remote"},
	"net/http":                           {"cmd/imgmut", "mutate", "mutate/remote"},
	"github.com/google/uuid":             {"fixtures/bench", "mutate", "mutate/fork", "mutate/gpt", "mutate/mount"},
}

func TestImportDirection(t *testing.T) {
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		pkg := strings.TrimPrefix(f[0], module+"/")
		seen[pkg] = true
		allowed, ok := ourImports[pkg]
		if !ok {
			t.Errorf("%s is not in ourImports: decide what it may import", pkg)
		}
		used := map[string]bool{}
		for _, imp := range f[1:] {
			if dep, ours := strings.CutPrefix(imp, module+"/"); ours {
				used[dep] = true
				if dep != anywhere && !slices.Contains(allowed, dep) {
					t.Errorf("%s must not import %s", pkg, dep)
				}
			}
			for prefix, places := range onlyIn {
				if strings.HasPrefix(imp, prefix) && !slices.Contains(places, pkg) {
					t.Errorf("%s must not import %s, which belongs in %v", pkg, imp, places)
				}
			}
		}
		for _, dep := range allowed {
			if !used[dep] {
				t.Errorf("ourImports lets %s import %s, which it does not", pkg, dep)
			}
		}
	}
	for pkg := range ourImports {
		if !seen[pkg] {
			t.Errorf("ourImports has %s, which no longer exists", pkg)
		}
	}
}
