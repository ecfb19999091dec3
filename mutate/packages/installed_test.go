package packages_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/packages"
)

// guest is an image in which every command prints the same.
type guest struct {
	image
	prints string
	fails  error
}

func (g guest) Exec(_ context.Context, c agent.Command, network bool, out func([]byte)) error {
	if network {
		return errors.New("what is installed is not known to the network")
	}
	for line := range bytes.Lines([]byte(g.prints)) {
		out(line)
	}
	return g.fails
}

// The lists are as the managers print them: that of apk is copied from apk-tools
// 2.14, since no test has a real apk. The others' are those of real images, whose
// scripts are packages*.txtar.
var lists = []struct {
	name   string
	guest  guest
	ids    string              // of all that is installed
	match  map[string][]string // the ids that a word stands for
	others map[string][]string
}{
	{"dpkg", guest{image: with("ID=debian\n", "/usr/bin/dpkg-query"), prints: "" +
		"installed\tlibssl3\tamd64\t3.0.11-1\ninstalled\tlibssl3\ti386\t3.0.11-1\ninstalled\ttzdata\tall\t2024a-0+deb12u1\n" +
		"config-files\tnano\tamd64\t7.2-1\nhalf-installed\tvim\tamd64\t2:9.0\n" +
		"half-configured\tmc\tamd64\t1\nunpacked\tgit\tamd64\t1\n" +
		"dpkg-query: warning: parsing file near line 1:\n"},
		"libssl3:amd64=3.0.11-1 libssl3:i386=3.0.11-1 tzdata:all=2024a-0+deb12u1",
		map[string][]string{
			"libssl3":               {"libssl3:amd64=3.0.11-1", "libssl3:i386=3.0.11-1"},
			"libssl3:i386":          {"libssl3:i386=3.0.11-1"},
			"libssl3:i386=3.0.11-1": {"libssl3:i386=3.0.11-1"},
			"libssl3=3.0.11-1":      {"libssl3:amd64=3.0.11-1", "libssl3:i386=3.0.11-1"},
			"libssl*":               {"libssl3:amd64=3.0.11-1", "libssl3:i386=3.0.11-1"},
			"libssl":                nil, "libssl3:arm64": nil, "libssl3=3.0.11": nil, "libssl3-3.0.11-1": nil,
			"nano": nil, "vim": nil, "mc": nil, "git": nil, "dpkg-query": nil,
		},
		map[string][]string{
			"libssl3:arm64": {"libssl3:amd64=3.0.11-1", "libssl3:i386=3.0.11-1"},
			"tzdata=2025a":  {"tzdata:all=2024a-0+deb12u1"}, "nano=1": nil, "libss": nil,
		}},
	{"rpm", guest{image: with("ID=fedora\n", "/usr/bin/rpm"), prints: "" +
		"openssl\tx86_64\t1:3.0.7-1.el9\nopenssl-libs\tx86_64\t1:3.0.7-1.el9\n" +
		"kernel\tx86_64\t6.8.5-301\nkernel\tx86_64\t6.8.9-300\ngpg-pubkey\t(none)\t18b8e74c-62f2920f\nwarning: waiting for lock\n"},
		"openssl-1:3.0.7-1.el9.x86_64 openssl-libs-1:3.0.7-1.el9.x86_64 kernel-6.8.5-301.x86_64 kernel-6.8.9-300.x86_64",
		map[string][]string{
			"openssl":                      {"openssl-1:3.0.7-1.el9.x86_64"},
			"openssl.x86_64":               {"openssl-1:3.0.7-1.el9.x86_64"},
			"openssl-3.0.7":                {"openssl-1:3.0.7-1.el9.x86_64"},
			"openssl-3.0.7-1.el9":          {"openssl-1:3.0.7-1.el9.x86_64"},
			"openssl-3.0.7-1.el9.x86_64":   {"openssl-1:3.0.7-1.el9.x86_64"},
			"openssl-1:3.0.7-1.el9.x86_64": {"openssl-1:3.0.7-1.el9.x86_64"},
			"openssl=3.0.7":                {"openssl-1:3.0.7-1.el9.x86_64"},
			"kernel":                       {"kernel-6.8.5-301.x86_64", "kernel-6.8.9-300.x86_64"},
			"kernel-6.8.9":                 {"kernel-6.8.9-300.x86_64"},
			"openssl.i686":                 nil, "openssl-3.0": nil, "openssl-2:3.0.7-1.el9": nil, "gpg-pubkey": nil,
		},
		map[string][]string{
			"openssl-libs-1.1": {"openssl-libs-1:3.0.7-1.el9.x86_64"}, "openssl.i686": {"openssl-1:3.0.7-1.el9.x86_64"},
			"kernel-7": {"kernel-6.8.5-301.x86_64", "kernel-6.8.9-300.x86_64"}, "openssl11": nil,
		}},
	{"pacman", guest{image: with("ID=arch\n", "/usr/bin/pacman"), prints: "" +
		"warning: database file for 'core' does not exist (use '-Sy' to download)\n" +
		"Name            : bash\nVersion         : 5.2.026-2\nDescription     : Name : and Version : of no meaning\n" +
		"                  Version : 9\nArchitecture    : x86_64\nInstalled Size  : 9.20 MiB\n\n" +
		"Name            : fuse-common\nVersion         : 1:3.16-1\nArchitecture    : any\n\n"},
		"bash-5.2.026-2-x86_64 fuse-common-1:3.16-1-any",
		map[string][]string{
			"bash": {"bash-5.2.026-2-x86_64"}, "bash=5.2.026-2": {"bash-5.2.026-2-x86_64"},
			"bash-5.2.026-2": {"bash-5.2.026-2-x86_64"}, "bash-5.2.026-2-x86_64": {"bash-5.2.026-2-x86_64"},
			"fuse-common=1:3.16-1": {"fuse-common-1:3.16-1-any"}, "fuse": nil, "bash-5.2.026-2-any": nil,
		},
		map[string][]string{"bash=5": {"bash-5.2.026-2-x86_64"}}},
	{"apk", guest{image: with("ID=alpine\n", apk), prints: "" +
		"WARNING: opening /var/cache/apk: No such file or directory\n" +
		"alpine-baselayout-data-3.4.3-r2 x86_64 {alpine-baselayout} (GPL-2.0-only) [installed]\n" +
		"libcrypto3-3.1.4-r5 x86_64 {openssl} (Apache-2.0) [installed]\n" +
		".build-deps-20240101.120000 noarch {.build-deps} () [installed]\n"},
		"alpine-baselayout-data-3.4.3-r2 libcrypto3-3.1.4-r5 .build-deps-20240101.120000",
		map[string][]string{
			"libcrypto3": {"libcrypto3-3.1.4-r5"}, "libcrypto3=3.1.4-r5": {"libcrypto3-3.1.4-r5"},
			"libcrypto3-3.1.4-r5": {"libcrypto3-3.1.4-r5"}, "alpine-baselayout-data": {"alpine-baselayout-data-3.4.3-r2"},
			"libcrypto3=3.1.4": nil, "alpine-baselayout": nil, "openssl": nil,
		},
		map[string][]string{"libcrypto3=3.1.4-r6": {"libcrypto3-3.1.4-r5"}}},
}

func TestList(t *testing.T) {
	for _, tc := range lists {
		t.Run(tc.name, func(t *testing.T) {
			all, err := packages.List(t.Context(), tc.guest)
			if err != nil {
				t.Fatal(err)
			}
			ids := func(list []packages.Package) (ids []string) {
				for _, p := range list {
					ids = append(ids, all.ID(p))
				}
				return ids
			}
			if got := strings.Join(ids(all.Packages), " "); got != tc.ids {
				t.Errorf("installed are\n%s, want\n%s", got, tc.ids)
			}
			for word, want := range tc.match {
				if got := ids(all.Match(word)); !slices.Equal(got, want) {
					t.Errorf("%s stands for %q, want %q", word, got, want)
				}
			}
			for word, want := range tc.others {
				if got := ids(all.Others(word)); !slices.Equal(got, want) {
					t.Errorf("beside %s there are %q, want %q", word, got, want)
				}
			}
		})
	}
}

func TestListFails(t *testing.T) {
	_, err := packages.List(t.Context(), guest{image: with("ID=debian\n", "/usr/bin/dpkg-query"), prints: "no database\n",
		fails: &agent.ExitError{Command: "dpkg-query", Reason: "exit status 2"}})
	if err == nil || err.Error() != "list installed packages: dpkg-query: exit status 2: no database" {
		t.Errorf("List: %v", err)
	}
	_, err = packages.List(t.Context(), guest{image: with("ID=debian\n", aptGet)})
	const want = `the image is "debian", and has none of /usr/bin/dpkg-query, /usr/bin/rpm, `
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("List of an image without a database: %v", err)
	}
}
