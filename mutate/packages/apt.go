package packages

import (
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
)

// apt is the package manager of Debian, Ubuntu and their kin (apt-get(8)).
var apt = Manager{
	Name:     "apt-get",
	ids:      []string{"debian", "ubuntu"},
	programs: []string{"/usr/bin/apt-get"},
	files:    ".deb",
	words:    aptWords,
	env:      aptEnv,
	covers:   []agent.Cover{noServices},
	database: dpkg,
}

// noServices keeps maintainer scripts from starting what they install: there
// is no init in the guest, and invoke-rc.d would fall back to SysV scripts
// (invoke-rc.d(8), 101 is "action forbidden by policy").
var noServices = agent.Cover{Path: "/usr/sbin/policy-rc.d", Content: "#!/bin/sh\nexit 101\n", Mode: 0o755}

// aptEnv keeps installers from asking: debconf, dpkg about changed
// configuration files, ucf about the same, and the hooks of apt that show news
// and bugs or ask which services to restart.
var aptEnv = map[string]string{
	"DEBIAN_FRONTEND":             "noninteractive",
	"DEBIAN_PRIORITY":             "critical",
	"DEBCONF_NONINTERACTIVE_SEEN": "true",
	"DPKG_FORCE":                  "unsafe-io,confold,confdef", // for unsafe-io see aptOptions
	"UCF_FORCE_CONFFOLD":          "1",
	"APT_LISTCHANGES_FRONTEND":    "none",
	"APT_LISTBUGS_FRONTEND":       "none",
	"NEEDRESTART_MODE":            "l",
	"NEEDRESTART_SUSPEND":         "1",
}

// aptOptions go with every apt-get. The fork is thrown away if anything goes
// wrong and synced as a whole if not, so dpkg need not sync every file
// (dpkg(1), --force-unsafe-io). Downloaded packages would only swell the layer.
const aptOptions = "--quiet --assume-yes -o APT::Keep-Downloaded-Packages=false -o Dpkg::Use-Pty=0 -o Acquire::Retries=3"

// aptWords puts into /run what need not be in the image: /run is gone with the
// command. Lists that the image came with stay as they are: they are used if
// they are there and the step does not ask for newer ones.
const aptWords = `
work=/run/imgmut/apt
mkdir -p $work/lists/partial
options='` + aptOptions + `'
options="$options -o Dir::Cache::pkgcache=$work/pkgcache.bin -o Dir::Cache::srcpkgcache=$work/srcpkgcache.bin"
get() { apt-get $options "$@"; }
fetch() { get update -o APT::Update::Error-Mode=any; }
# Descriptions and lists of sources are for people, who never see these lists.
fetch_aside() {
	options="$options -o Dir::State::lists=$work/lists -o Acquire::Languages=none"
	options="$options -o Acquire::IndexTargets::deb-src::Sources::DefaultEnabled=false"
	fetch
}
use_lists() { ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1; }
# apt-get passes over what it knows and is not installed, but fails over what it has no list of. Patterns are its own.
installed() {
	case $1 in *\**) return 0 ;; esac
	dpkg-query --show "${1%%[=/]*}" >/dev/null 2>&1
}
remove() { get remove -- "$@"; }
upgrade() { get install --only-upgrade -- "$@"; }
upgrade_all() { get upgrade --with-new-pkgs; }
install() { get install -- "$@"; }
`

// dpkg knows what apt has installed (dpkg-query(1)).
var dpkg = database{
	programs: []string{"/usr/bin/dpkg-query"},
	list: agent.Command{Argv: []string{"dpkg-query", "--show",
		`--showformat=${db:Status-Status}\t${Package}\t${Architecture}\t${Version}\n`}},
	parse: func(list string) []Package {
		var whole strings.Builder
		for line := range strings.Lines(list) {
			if p, ok := strings.CutPrefix(line, "installed\t"); ok {
				whole.WriteString(p)
			}
		}
		return columns(whole.String())
	},
	ids: func(p Package) []string {
		return []string{p.Name, p.Name + ":" + p.Arch, p.Name + "=" + p.Version, p.Name + ":" + p.Arch + "=" + p.Version}
	},
}
