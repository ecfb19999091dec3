package step

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/record"
)

// listOf is the list of a tree t with n files, each with a digest of its own.
func listOf(n int, change func(i int, in *record.Input) (leave bool)) *fileList {
	l := newFileList(From{Path: "t"})
	for i := range n {
		in := record.Input{Path: fmt.Sprintf("t/%05d", i), Digest: fmt.Sprint("digest ", i)}
		if change == nil || !change(i, &in) {
			l.add(in.Path, in.Digest)
		}
	}
	return l
}

// TestLargeTreesAreKnownAsOne: what is kept of a tree does not grow with it, and
// any change shows all the same.
func TestLargeTreesAreKnownAsOne(t *testing.T) {
	if got := listOf(maxListed, nil).inputs(); len(got) != maxListed || got[7] != (record.Input{Path: "t/00007", Digest: "digest 7"}) {
		t.Errorf("%d inputs of as many files as are listed", len(got))
	}
	const many = maxListed + 1
	whole := listOf(many, nil).inputs()
	if len(whole) != 1 || whole[0].Path != "t" || len(whole[0].Digest) != 64 {
		t.Fatalf("inputs of one file more: %.3v", whole)
	}
	if again := listOf(many, nil).inputs(); again[0] != whole[0] {
		t.Error("the digest of a tree is another each time")
	}
	for name, change := range map[string]func(i int, in *record.Input) bool{
		"a digest": func(i int, in *record.Input) bool { in.Digest = strings.TrimSuffix(in.Digest, "99"); return false },
		"a path": func(i int, in *record.Input) bool {
			in.Path = strings.Replace(in.Path, "t/00099", "t/x", 1)
			return false
		},
		"a file":   func(i int, in *record.Input) bool { return i == 99 },
		"the last": func(i int, in *record.Input) bool { return i == many-1 },
	} {
		now := listOf(many, change)
		if got := now.inputs(); len(got) == 1 && got[0] == whole[0] {
			t.Errorf("changed %s, and the digest is the same", name)
		}
		if err := listOf(many, nil).check(now); !errors.Is(err, ErrInputChanged) {
			t.Errorf("changed %s, and check says %v", name, err)
		}
	}
	if err := listOf(many, nil).check(listOf(many, nil)); err != nil {
		t.Errorf("nothing changed: %v", err)
	}
}

// TestChangedFilesAreNamed: of a small tree the file is named that changed, at the
// moment when it is read.
func TestChangedFilesAreNamed(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(i int, in *record.Input) bool
		more   int
		says   string
	}{
		{"nothing", nil, 0, ""},
		{"bytes", func(i int, in *record.Input) bool { in.Digest += strings.Repeat("x", i/3%2); return false }, 0, "t/00003:"},
		{"gone", func(i int, in *record.Input) bool { return i == 2 }, 0, "t/00002:"},
		{"gone at the end", func(i int, in *record.Input) bool { return i == 4 }, 0, "t/00004:"},
		{"new at the end", nil, 1, "t/00005:"},
		{"another name", func(i int, in *record.Input) bool {
			in.Path = strings.Replace(in.Path, "t/00001", "t/00001x", 1)
			return false
		}, 0, "t/00001x:"},
	} {
		was, now := listOf(5, nil), newFileList(From{Path: "t"})
		var err error
		for _, in := range listOf(5+tc.more, tc.change).files {
			if now.add(in.Path, in.Digest); err == nil {
				err = was.checkLast(now)
			}
		}
		if err == nil {
			err = was.check(now)
		}
		if (err == nil) != (tc.says == "") || err != nil && (!errors.Is(err, ErrInputChanged) || !strings.Contains(err.Error(), tc.says)) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.says)
		}
	}
}
