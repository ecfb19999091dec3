package packages

import (
	"fmt"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
)

// Change is what is to be done, in this order: lists are fetched, packages
// removed, upgraded, installed.
type Change struct {
	// Update fetches the lists of packages even if the image has some. Without
	// it they are fetched where the image has none, or to upgrade.
	Update     bool
	Remove     []string // where they are installed
	UpgradeAll bool
	Upgrade    []string // only these, where they are installed
	Install    []string // names, or absolute paths of package files in the image
	// KeepLists leaves in the image the lists that were fetched.
	KeepLists bool
}

// aside is a directory of imgmut's own for what is only needed on the way. It is
// on the image's disk, since what a manager downloads can be larger than /run,
// and removed by the command that is the change. If that fails the whole image is
// thrown away.
const aside = "/var/cache/imgmut"

// common begins the script of every change. The manager's words come after it:
//
//	fetch           fetch lists into the image
//	fetch_aside     fetch lists for this change only
//	use_lists       use the lists that the image has, and leave them as they are; fails if it has none
//	installed NAME  whether it is: managers differ in what they do if it is not
//	remove NAME…    and upgrade NAME…, install NAME-OR-FILE…, upgrade_all
//	finish          leave nothing behind elsewhere
const common = `#!/bin/sh
set -e
aside=` + aside + `
above=/var/cache
: >/run/imgmut-before
[ ! -d $above ] || touch -r $above /run/imgmut-before
mkdir -p $aside
touch -r $above /run/imgmut-made
# clear leaves nothing of it, not even the time of a directory that nobody else has changed.
clear() {
	[ ! $above -nt /run/imgmut-made ] || touch -r $above /run/imgmut-before
	rm -rf $aside
	touch -r /run/imgmut-before $above
}
finish() { :; }
# only_installed WORD NAME...: do it to those of the names that are installed, if any is.
only_installed() {
	word=$1
	shift
	for name; do
		shift
		if installed "$name"; then set -- "$@" "$name"; else echo "$name is not installed"; fi
	done
	[ $# = 0 ] || $word "$@"
}
`

// offline tells the scripts of packages that there is no systemd to talk to: they
// may enable what they install, and start nothing (systemd's ENVIRONMENT.md).
var offline = map[string]string{"SYSTEMD_OFFLINE": "1"}

// Command is what to run in the image to make the change: one command, so that
// nothing of it outlives the command by accident.
func (m Manager) Command(c Change) (agent.Command, error) {
	for _, name := range c.Install {
		if isFile(name) && !strings.HasPrefix(ending(name), m.files) {
			return agent.Command{}, fmt.Errorf("install %s: the image has %s, which takes files that end in %s",
				name, m.Name, m.files)
		}
	}
	return agent.Command{
		Title: m.Name, Script: common + m.words + c.script(), Env: m.env, Covers: m.covers,
	}, nil
}

// script is the change in the words of a manager.
func (c Change) script() string {
	var s strings.Builder
	switch {
	case c.KeepLists:
		s.WriteString("fetch\n")
	case c.Update || c.UpgradeAll || len(c.Upgrade) > 0:
		s.WriteString("fetch_aside\n")
	case len(c.Install) > 0:
		s.WriteString("use_lists || fetch_aside\n")
	}
	do := func(word string, names []string) {
		if len(names) > 0 { // no quote is in them: CheckName and CheckInstall see to that
			s.WriteString(word + " '" + strings.Join(names, "' '") + "'\n")
		}
	}
	do("only_installed remove", c.Remove)
	if c.UpgradeAll {
		s.WriteString("upgrade_all\n")
	}
	do("only_installed upgrade", c.Upgrade)
	do("install", c.Install)
	s.WriteString("finish\nclear\n")
	return s.String()
}
