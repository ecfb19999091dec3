package step

import "github.com/imgmut/imgmut/mutate/agent"

// apt is the package manager of Debian, Ubuntu and their kin (apt-get(8)).
type apt struct{}

// noServices keeps maintainer scripts from starting what they install: there
// is no init in the guest, and invoke-rc.d would fall back to SysV scripts
// (invoke-rc.d(8), 101 is "action forbidden by policy").
var noServices = agent.Cover{Path: "/usr/sbin/policy-rc.d", Content: "#!/bin/sh\nexit 101\n", Mode: 0o755}

func (apt) commands(p *Packages) []agent.Command {
	get := func(args ...string) agent.Command {
		return agent.Command{
			// The fork is thrown away if anything goes wrong and synced as a
			// whole if not, so dpkg need not sync every file (dpkg(1),
			// --force-unsafe-io). Downloaded packages would only swell the layer.
			Argv: append([]string{"apt-get", "--quiet", "--assume-yes", "-o", "APT::Keep-Downloaded-Packages=false",
				"-o", "Dpkg::Use-Pty=0", "-o", "Acquire::Retries=3"}, args...),
			Env:    map[string]string{"DEBIAN_FRONTEND": "noninteractive", "DPKG_FORCE": "unsafe-io,confold,confdef"},
			Covers: []agent.Cover{noServices},
		}
	}
	var cs []agent.Command
	if p.Update {
		cs = append(cs, get("update", "-o", "APT::Update::Error-Mode=any"))
	}
	if len(p.Remove) > 0 {
		cs = append(cs, get(append([]string{"remove", "--"}, p.Remove...)...))
	}
	if len(p.Install) > 0 {
		cs = append(cs, get(append([]string{"install", "--"}, p.Install...)...))
	}
	return cs
}

func (apt) query(name string) agent.Command {
	return agent.Command{Argv: []string{"dpkg-query", "--show", "--showformat=${db:Status-Status}", "--", name}}
}
