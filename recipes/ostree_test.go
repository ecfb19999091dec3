package recipes

import (
	"strings"
	"testing"
)

func TestOstree(t *testing.T) {
	for in, want := range map[string]Ostree{
		"{mode: etc}":               {Mode: OstreeEtc},
		"{mode: commit}":            {Mode: OstreeCommit},
		"{mode: commit, keep: 1}":   {Mode: OstreeCommit, Keep: 1},
		`{mode: "commit", keep: 5}`: {Mode: OstreeCommit, Keep: 5},
	} {
		r, err := Parse("r.yaml", []byte(head+"ostree: "+in+"\n"))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		want.Pos = Pos{Line: 4, Col: 9}
		if r.Ostree != want {
			t.Errorf("%s: %+v, want %+v", in, r.Ostree, want)
		}
	}
}

func TestOstreeProblems(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "r.yaml:4:8: ostree: want a mapping with mode, found nothing",
		"commit":                   `r.yaml:4:9: ostree: want a mapping with mode, found "commit"`,
		"{}":                       "r.yaml:4:9: ostree.mode: missing",
		"{keep: 1}":                "r.yaml:4:9: ostree.mode: missing",
		"{mode: usr}":              `r.yaml:4:16: ostree.mode: "usr": want etc`,
		"{mode: 1}":                "r.yaml:4:16: ostree.mode: want",
		"{mode: commit, keep: 0}":  "r.yaml:4:30: ostree.keep: want 1 to 16 deployments",
		"{mode: commit, keep: 17}": "r.yaml:4:30: ostree.keep: want 1 to 16 deployments",
		"{mode: commit, keep: -1}": "r.yaml:4:30: ostree.keep: want 1 to 16 deployments",
		"{mode: commit, keep: x}":  "r.yaml:4:30: ostree.keep: want",
		"{mode: etc, keep: 1}":     "r.yaml:4:21: ostree.keep: in mode etc no deployment is made",
		"{mode: commit, kep: 1}":   "r.yaml:4:24: ostree.kep: unknown key",
	} {
		_, err := Parse("r.yaml", []byte(head+"ostree: "+in+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got  %v\nwant %s", in, err, want)
		}
	}
}
