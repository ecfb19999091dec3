package packages

import (
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// apk is the package manager of Alpine Linux and its kin (apk(8)).
var apk = Manager{
	Name:     "apk",
	ids:      []string{"alpine"},
	programs: apkPrograms,
	files:    ".apk",
	words:    apkWords,
	database: apkDB,
}

// apkPrograms: where /sbin is not a link to /usr/bin, apk is in either.
var apkPrograms = []string{"/sbin/apk", "/usr/bin/apk"}

// apkWords: a cache in a place of its own keeps what is downloaded as well, and
// goes with that place. Lists of the image are copied, so that they stay as they
// are, and are taken however old they are (the age is in minutes). A file has to
// be signed with a key of the image, since apk can do without for all or for none.
const apkWords = `
cache="--cache-dir $aside"
run() { apk --no-progress $cache "$@"; }
fetch() {
	cache=
	run update
}
fetch_aside() { run update; }
use_lists() {
	ls /var/cache/apk/APKINDEX.*.tar.gz >/dev/null 2>&1 || return
	cache="$cache --cache-max-age 5256000"
	cp -a /var/cache/apk/APKINDEX.*.tar.gz $aside
}
installed() { apk info --installed "${1%%=*}" >/dev/null 2>&1; }
remove() { run del "$@"; }
upgrade() { run upgrade "$@"; }
upgrade_all() { run upgrade; }
install() { run add --upgrade "$@"; }
`

// apkDB knows what apk has installed.
var apkDB = database{
	programs: apkPrograms,
	list:     agent.Command{Argv: []string{"apk", "list", "--installed"}},
	parse: func(list string) []Package {
		var all []Package
		for _, line := range apkLine().FindAllStringSubmatch(list, -1) {
			all = append(all, Package{Name: line[1], Arch: line[3], Version: line[2]})
		}
		return all
	},
	ids: func(p Package) []string {
		return []string{p.Name, p.Name + "=" + p.Version, p.Name + "-" + p.Version}
	},
}

// apkLine is "busybox-1.36.1-r15 x86_64 {busybox} (GPL-2.0-only) [installed]".
var apkLine = lazyregexp.New(`(?m)^(\S+)-([0-9][^\s-]*(?:-r[0-9]+)?) (\S+) \{.*\[installed\]`)
