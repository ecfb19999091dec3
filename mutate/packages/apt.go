package packages

import (
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
)

// apt is the package manager of Debian, Ubuntu and their kin (apt-get(8)).
var apt = Manager{
	Name:     "apt",
	IDs:      []string{"debian", "ubuntu"},
	commands: aptCommands,
	query: func(name string) agent.Command {
		return agent.Command{Argv: []string{"dpkg-query", "--show", "--showformat=${db:Status-Status}", "--", name}}
	},
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

// aptScript begins every change. All of a change is one command, because what it
// puts into /run is gone with the command's own /run: so lists and caches never
// are in the image. Lists that the image came with stay as they are: they are
// used if they are there and the step does not ask for newer ones.
const aptScript = `#!/bin/sh
set -e
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
has_lists() { ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1; }
`

func aptCommands(c Change) []agent.Command {
	var s strings.Builder
	s.WriteString(aptScript)
	switch {
	case c.KeepLists:
		s.WriteString("fetch\n")
	case c.Update || c.UpgradeAll || len(c.Upgrade) > 0:
		s.WriteString("fetch_aside\n")
	case len(c.Install) > 0:
		s.WriteString("has_lists || fetch_aside\n")
	}
	do := func(verb string, names []string) {
		s.WriteString("get " + verb)
		if len(names) > 0 {
			s.WriteString(" -- " + quoted(names))
		}
		s.WriteString("\n")
	}
	if len(c.Remove) > 0 {
		do("remove", c.Remove)
	}
	if c.UpgradeAll {
		do("upgrade --with-new-pkgs", nil)
	}
	if len(c.Upgrade) > 0 {
		do("install --only-upgrade", c.Upgrade)
	}
	if len(c.Install) > 0 {
		do("install", c.Install)
	}
	return []agent.Command{{Title: "apt-get", Script: s.String(), Env: aptEnv, Covers: []agent.Cover{noServices}}}
}

// quoted makes words of a shell of names; [CheckName] has seen to it that no
// quote is in them.
func quoted(names []string) string { return "'" + strings.Join(names, "' '") + "'" }
