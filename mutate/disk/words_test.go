package disk

import (
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// TestTypeWords: each type is one that sfdisk(8) knows too.
func TestTypeWords(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	known := map[string]bool{}
	for _, label := range []string{"gpt", "dos"} {
		for line := range strings.Lines(fixtures.Program(t, "", "sfdisk", "--label", label, "--list-types")) {
			if id, _, ok := strings.Cut(strings.TrimSpace(line), " "); ok && label == "gpt" {
				known[strings.ToLower(id)] = true
			} else if ok {
				known[strings.ToLower("0x"+strings.Repeat("0", max(2-len(id), 0))+id)] = true
			}
		}
	}
	for id, words := range typeWords {
		if !known[id] || words == "" {
			t.Errorf("sfdisk does not know the type %s, %s", id, words)
		}
	}
	for id, want := range map[string]string{
		"C12A7328-F81F-11D2-BA4B-00A0C93EC93B": "EFI system", "0x83": "Linux data", "0x99": "0x99", "": "",
	} {
		if got := (Volume{Type: id}).TypeWords(); got != want {
			t.Errorf("type %q is %q, want %q", id, got, want)
		}
	}
}
