package packages

import (
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
)

// rpmInstalled is a word for both, since both fail over what is not installed.
// Groups and patterns are left to them.
const rpmInstalled = `
installed() {
	case $1 in @* | *\**) return 0 ;; esac
	rpm --query --quiet "${1%%=*}"
}
`

// rpm knows what dnf and zypper have installed (rpm(8)).
var rpm = database{
	programs: []string{"/usr/bin/rpm"},
	list: agent.Command{Argv: []string{"rpm", "--query", "--all",
		"--queryformat", `%{NAME}\t%{ARCH}\t%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\n`}},
	parse: func(list string) []Package {
		isKey := func(p Package) bool { return p.Name == "gpg-pubkey" } // kept like a package
		return slices.DeleteFunc(columns(list), isKey)
	},
	ids: rpmIDs,
}

// rpmIDs are the forms of dnf, and those with an equals sign of zypper. Epoch and
// release can be left out.
func rpmIDs(p Package) []string {
	withoutEpoch := p.Version[strings.Index(p.Version, ":")+1:]
	version, _, _ := strings.Cut(withoutEpoch, "-") // neither half may have a dash
	ids := []string{p.Name, p.Name + "." + p.Arch}
	for _, v := range []string{version, withoutEpoch, p.Version} {
		ids = append(ids, p.Name+"="+v, p.Name+"-"+v, p.Name+"-"+v+"."+p.Arch)
	}
	return ids
}
