package packages

import "strings"

// Fedora, Red Hat's family and some others have one of these: dnf in its two
// generations (dnf(8), dnf5(8)), which do not have the same options, or microdnf,
// which has few. A dnf.conf may say that a package or a repository that is not
// there is passed over; here that is a failure.
var (
	dnf5 = newDNF("dnf5", "/var/cache/libdnf5",
		"system_cachedir=$lists", "skip_unavailable=0", "skip_broken=0", "*.skip_if_unavailable=0")
	dnf      = newDNF("dnf", "/var/cache/dnf", "strict=1", "*.skip_if_unavailable=0")
	microdnf = newDNF("microdnf", "/var/cache/yum")
)

// newDNF is one of them, with where it keeps lists and downloads, and with
// settings that it is to have beside those of dnfWords.
func newDNF(program, lists string, settings ...string) Manager {
	options := ""
	for _, s := range settings {
		options += " --setopt=" + s
	}
	words := strings.NewReplacer("PROGRAM", program, "LISTS", lists, " OPTIONS", options).Replace(dnfWords)
	return Manager{
		Name:     program,
		ids:      []string{"fedora", "rhel", "centos"},
		programs: []string{"/usr/bin/" + program},
		files:    ".rpm",
		words:    rpmInstalled + words,
		env:      offline,
		database: rpm,
	}
}

// dnfWords has all that is fetched in one directory, lists and packages. Lists of
// the image are copied, so that they stay as they are, and however old they are,
// they are taken if the step does not ask for newer ones.
const dnfWords = `
kept=LISTS
lists=$aside/lists
options="--assumeyes --setopt=keepcache=0 --setopt=*.metadata_expire=never"
run() { PROGRAM $options --setopt=cachedir=$lists OPTIONS "$@"; }
fetch() {
	lists=$kept
	run --refresh makecache
}
fetch_aside() { :; } # the first that needs them does
use_lists() {
	ls -d $kept/*/repodata >/dev/null 2>&1 || ls -d $kept/metadata/*/repodata >/dev/null 2>&1 || return
	cp -a $kept $lists
}
remove() { run remove "$@"; }
upgrade() { run upgrade "$@"; }
upgrade_all() { run upgrade; }
install() { run install "$@"; }
`
