package verify_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/disk"
)

// TestFirstBoot: what the first start would do to units against the image is wrong, if
// there is a first start.
func TestFirstBoot(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	const (
		first  = "uninitialized\n"
		unit   = "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
		wants  = "etc/systemd/system/multi-user.target.wants/"
		enable = "enable foo.service\nenable bar@.service a b\n"
	)
	both := []string{wants + "foo.service", wants + "bar@a.service", wants + "bar@b.service"}
	for _, tc := range []struct {
		name, id, rules string
		links           []string // of units
		more            []string // for debugfs
		want            string
	}{
		{"as the rules say", first, enable + "disable baz.service\n", both, nil, ""},
		{"no rules", first, "", nil, nil, ""},
		{"disabled since", first, enable, both[1:], nil,
			"the first start will enable foo.service, as a systemd step has said, and a later step disabled it by itself"},
		{"an instance that is disabled since", first, enable, both[:2], nil, "the first start will enable bar@b.service, as"},
		{"enabled since", first, "disable foo.service\n", both[:1], nil, "the first start will disable foo.service, as"},
		{"no first start", "", enable, nil, nil, ""},
		{"masked", first, enable, both[1:],
			[]string{"rm etc/systemd/system/foo.service", "symlink etc/systemd/system/foo.service /dev/null"}, ""},
		{"gone", first, enable, both[1:], []string{"rm etc/systemd/system/foo.service"}, ""},
		{"by another name", first, enable, both[1:], []string{"symlink etc/systemd/system/other.service foo.service"}, ""},
		{"no machine-id", first, enable, both[1:], []string{"rm etc/machine-id"}, "the first start will enable foo.service"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image.raw")
			fixtures.Clone(t, fixtures.Image(t, "debian-12"), path)
			root(t, path, "rm etc/machine-id", "mkdir etc/systemd/system-preset")
			for name, text := range map[string]string{"machine-id": tc.id, "systemd/system/foo.service": unit,
				"systemd/system/bar@.service": unit, "systemd/system-preset/0-imgmut.preset": tc.rules} {
				rootFile(t, path, text, "etc/"+name)
			}
			for _, link := range tc.links {
				root(t, path, "symlink "+link+" ../"+filepath.Base(link))
			}
			root(t, path, tc.more...)
			i, err := disk.Open(t.Context(), open(t, path), func(text string) { t.Error(text) })
			if err != nil {
				t.Fatal(err)
			}
			defer i.Close()
			if c := checkOf(t, "first boot", i, nil); c.OK != (tc.want == "") || !strings.HasPrefix(c.Detail, tc.want) || c.OK != (c.Mend == "") {
				t.Errorf("%+v, want %q", c, tc.want)
			}
		})
	}
}
