package boot

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite what is wanted in testdata")

// The volumes of the systems in testdata.
const (
	rootUUID = "aaaaaaaa-1111-4111-8111-111111111111"
	bootUUID = "bbbbbbbb-2222-4222-8222-222222222222"
)

var volumes = []struct{ dir, at, uuid string }{
	{"root", "/", rootUUID}, {"boot", "/boot", bootUUID}, {"esp", "/boot/efi", "1A2B-3C4D"}, {"efi", "/efi", "1A2B-3C4D"},
	{"firmware", "/boot/firmware", "5E6F-7A8B"}, {"unmounted", "", "1A2B-3C4D"},
}

// isRoot knows the root of the systems in testdata.
func isRoot(spec string) (is, known bool) {
	switch spec {
	case "UUID=" + rootUUID, "LABEL=root", "LABEL=cloudimg-rootfs", "PARTUUID=12345678-02":
		return true, true
	}
	return false, !strings.HasPrefix(spec, "/dev/")
}

// places makes those that the names of files begin with.
func places(files []txtar.File) (all []Place) {
	for _, v := range volumes {
		tree := fstest.MapFS{}
		for _, f := range files {
			if name, ok := strings.CutPrefix(f.Name, v.dir+"/"); ok {
				tree[name] = mapFile(name, string(f.Data))
			}
		}
		if len(tree) > 0 && v.at == "/" {
			tree["usr/lib/systemd/systemd"] = mapFile("systemd", "x")
		}
		if len(tree) > 0 {
			all = append(all, Place{At: v.at, UUID: v.uuid, FS: tree})
		}
	}
	return all
}

// TestSystems: what boots of whole systems, and what is wrong with it.
func TestSystems(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no systems: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := places(a.Files)
			entries, err := Entries(in)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{"entries": describe(entries), "findings": told(Read(in).Judge(isRoot))}
			for i, f := range a.Files {
				text, wanted := got[f.Name]
				if *update && wanted {
					a.Files[i].Data = []byte(text)
				} else if diff := cmp.Diff(string(f.Data), text); wanted && diff != "" {
					t.Errorf("%s (-want +got):\n%s", f.Name, diff)
				}
				delete(got, f.Name)
			}
			if len(got) > 0 {
				t.Errorf("it does not say what is wanted: %v", got)
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func describe(entries []Entry) string {
	var b strings.Builder
	for _, e := range entries {
		mark := " "
		if e.Default {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %s %s id=%q title=%q version=%s\n\t%s %s\n\t%s\n", mark, e.Loader, e.File, e.ID, e.Title, e.Version,
			e.Kernel, e.Initrds, e.Options)
	}
	return b.String()
}

func told(findings []Finding) string {
	var b strings.Builder
	for _, f := range findings {
		if f.Note {
			fmt.Fprintf(&b, "note: %s\n", f.What)
		} else {
			fmt.Fprintf(&b, "wrong: %s\n\t(%s)\n", f.What, f.Mend)
		}
	}
	return b.String()
}
