package recipes

import (
	"strings"
	"testing"
)

func TestDisk(t *testing.T) {
	for in, want := range map[string]Disk{
		"{size: 20G}":               {Size: Size{20 << 30, false}},
		"{size: 512M}":              {Size: Size{512 << 20, false}},
		"{size: +10G}":              {Size: Size{10 << 30, true}},
		`{size: "1T"}`:              {Size: Size{1 << 40, false}},
		"{size: 8388608K}":          {Size: Size{8 << 30, false}},
		"{size: 20G, grow: 3}":      {Size: Size{20 << 30, false}, Grow: "3"},
		`{size: 20G, grow: "15"}`:   {Size: Size{20 << 30, false}, Grow: "15"},
		"{size: 20G, grow: /}":      {Size: Size{20 << 30, false}, Grow: "/"},
		"{size: 20G, grow: /var/x}": {Size: Size{20 << 30, false}, Grow: "/var/x"},
	} {
		r, err := Parse("r.yaml", []byte(head+"disk: "+in+"\n"))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		want.Pos = Pos{Line: 4, Col: 7}
		if r.Disk != want {
			t.Errorf("%s: %+v, want %+v", in, r.Disk, want)
		}
	}
}

func TestDiskProblems(t *testing.T) {
	for in, want := range map[string]string{
		"":                         "r.yaml:4:6: disk: want a mapping with size, found nothing",
		"20G":                      "r.yaml:4:7: disk: want a mapping with size, found \"20G\"",
		"{}":                       "r.yaml:4:7: disk.size: missing",
		"{grow: 2}":                "r.yaml:4:7: disk.size: missing",
		"{size: 20G, gorw: 2}":     "r.yaml:4:19: disk.gorw: unknown key",
		"{size: 20}":               `r.yaml:4:14: disk.size: "20": want a size such as 512M, 20G or +10G`,
		"{size: 20GB}":             `r.yaml:4:14: disk.size: "20GB": want a size`,
		"{size: 20g}":              `r.yaml:4:14: disk.size: "20g": want a size`,
		"{size: 1.5G}":             `r.yaml:4:14: disk.size: "1.5G": want a size`,
		"{size: -1G}":              `r.yaml:4:14: disk.size: "-1G": want a size`,
		"{size: 0G}":               `r.yaml:4:14: disk.size: "0G": want a size`,
		"{size: 9999999999T}":      `r.yaml:4:14: disk.size: "9999999999T": more than any disk has`,
		"{size: 8388608T}":         `r.yaml:4:14: disk.size: "8388608T": more than any disk has`,
		"{size: [20G]}":            "r.yaml:4:14: disk.size: want a size such as 20G or +10G, found a list",
		"{size: 20G, grow: 0}":     `r.yaml:4:25: disk.grow: "0": want the number of a partition`,
		"{size: 20G, grow: var}":   `r.yaml:4:25: disk.grow: "var": want the number of a partition, or where it is mounted, as /var`,
		"{size: 20G, grow: /var/}": `r.yaml:4:25: disk.grow: "/var/": want the number of a partition`,
		"{size: 20G, grow: true}":  "r.yaml:4:25: disk.grow: want the number of a partition",
	} {
		_, err := Parse("r.yaml", []byte(head+"disk: "+in+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got  %v\nwant %s", in, err, want)
		}
	}
}

// TestDiskSet: a command line may say what the recipe does not.
func TestDiskSet(t *testing.T) {
	for _, text := range []string{head, head + "disk: {size: 4G}\n"} {
		r, err := Parse("r.yaml", []byte(text), Set{"disk.size", "+20G"}, Set{"disk.grow", "2"})
		if err != nil || r.Disk.Size != (Size{20 << 30, true}) || r.Disk.Grow != "2" {
			t.Errorf("%+v, %v", r, err)
		}
	}
	_, err := Parse("r.yaml", []byte(head), Set{"disk.size", "20"})
	if want := `--set disk.size: "20": want a size such as 512M, 20G or +10G`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestSizeString(t *testing.T) {
	for _, want := range []string{"1K", "512M", "20G", "+10G", "3T", "1025M"} {
		s, err := ParseSize(want)
		if err != nil || s.String() != want {
			t.Errorf("%s: %s, %v", want, s, err)
		}
	}
	if s := (Size{Bytes: 2048 << 20}); s.String() != "2G" {
		t.Errorf("2048M is %s", s)
	}
}
