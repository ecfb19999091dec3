package verify_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/verify"
)

// TestSharedIdentity: what a machine is to have of its own and the image has already
// is told, with the mend, and never wrong.
func TestSharedIdentity(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	const id = "0123456789abcdef0123456789abcdef\n"
	for _, tc := range []struct {
		name  string
		files map[string]string
		want  []string // what the notes have, in order
	}{
		{"none", map[string]string{"etc/machine-id": "", "etc/ssh/ssh_host_rsa_key": "", "etc/ssh/sshd_config": "x"}, nil},
		{"uninitialized", map[string]string{"etc/machine-id": "uninitialized\n", "etc/ssh/ssh_host_rsa_key.pub": "x"}, nil},
		{"more than a machine-id", map[string]string{"etc/machine-id": strings.Repeat(id, 3)}, nil},
		{"both", map[string]string{"etc/machine-id": id, "etc/ssh/ssh_host_rsa_key": "x", "etc/ssh/ssh_host_ed25519_key": "x"},
			[]string{"(ssh_host_ed25519_key, ssh_host_rsa_key in /etc/ssh): have a step remove them",
				"the same machine-id (/etc/machine-id), by which DHCP servers and others take them for one: have the last step empty it"}},
		{"that of D-Bus", map[string]string{"etc/machine-id": "", "var/lib/dbus/machine-id": id},
			[]string{"(/var/lib/dbus/machine-id)"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "image.raw")
			fixtures.Clone(t, fixtures.Image(t, "debian-12"), path)
			root(t, path, "mkdir etc/ssh", "rm etc/machine-id", "rm var/lib/dbus/machine-id")
			for name, text := range tc.files {
				rootFile(t, path, text, name)
			}
			v, err := judge(t, path, verify.Request{})
			if err != nil {
				t.Fatal(err)
			}
			at := slices.IndexFunc(v.Checks, func(c record.Check) bool { return c.Name == "shared identity" })
			if at < 0 || !v.Checks[at].OK || len(v.Checks[at].Notes) != len(tc.want) {
				t.Fatalf("%+v, want notes of %q", v.Checks, tc.want)
			}
			for n, want := range tc.want {
				if got := v.Checks[at].Notes[n]; !strings.Contains(got, want) {
					t.Errorf("note %q, want %q", got, want)
				}
			}
		})
	}
}
