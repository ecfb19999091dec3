package mutate

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/mutate/record"
)

// StepError says which step of a recipe went wrong.
type StepError struct {
	Index   int // 1-based
	Name    string
	Kind    string
	Network bool           // the step had the network
	Boot    bool           // it had the image's disk
	Tail    []string       // the last lines it printed
	Sealed  []disk.Mounted // FAT volumes that its guest could not see
	Full    string         // the mend, if a filesystem of the image was full when it failed
	Err     error
}

func (e *StepError) Error() string { return fmt.Sprintf("step %d (%s): %v", e.Index, e.Name, e.Err) }

func (e *StepError) Unwrap() error { return e.Err }

// Fault implements the method of package fault.
func (e *StepError) Fault() string { return string(fault.Step) }

// noNetwork is what programs print when they cannot resolve a name or reach an
// address. Most print what getaddrinfo(3) or connect(2) told them.
var noNetwork = lazyregexp.New(`(?i)` + strings.Join([]string{
	// glibc and musl
	`temporary failure in name resolution`, `name or service not known`, `no address associated with hostname`,
	`name does not resolve`, `network is unreachable`,
	// apt; curl, git, dnf and ssh; cargo; wget and that of busybox; apk
	`temporary failure resolving`, `could not resolve`, `couldn't resolve host`, `unable to resolve host`,
	`bad address '`, `dns lookup error`, `dns: transient error`,
	// Go; Node.js; Java; Rust; PHP; ping
	`dial tcp: lookup `, `no such host`, `\bENOTFOUND\b`, `\bEAI_AGAIN\b`, `\bENETUNREACH\b`, `UnknownHostException`,
	`failed to lookup address information`, `getaddrinfo failed`, `unknown host`,
}, "|"))

// knownFailures are what programs print when a step lacks what a recipe can
// give it, which they cannot know of.
var knownFailures = []struct {
	in      func(*StepError) bool
	printed func() *regexp.Regexp
	hint    string
}{
	{func(e *StepError) bool { return !e.Network }, noNetwork, "a step has no network unless it says network: true"},
	{func(e *StepError) bool { return !e.Boot }, noDisk,
		"a step that works on how the image starts says so, and then has the image's disk: run: {script: …, boot: true}"},
	{func(e *StepError) bool { return e.Kind == "packages" }, noPackage,
		"check the name: no list of packages that the image knows of has it"},
	{func(e *StepError) bool { return e.Kind != "packages" }, noPackage,
		"the image has no lists of packages, or old ones: a packages step fetches them by itself"},
}

// noDisk is what programs print that work on how a system starts, and find no disk: GRUB's;
// those of initramfs-tools; bootctl and kernel-install, which ask for the ESP.
var noDisk = lazyregexp.New(`failed to get canonical path of|cannot find a (device|GRUB drive) for|` +
	`failed to determine device for|Couldn't find EFI system partition|Couldn't identify type of root file system|` +
	`doesn't look like an EFI partition`)

// noPackage is what package managers print of a package that no list has: apt-get;
// dnf in both generations; microdnf; zypper; pacman; apk.
var noPackage = lazyregexp.New(`Unable to locate package|has no installation candidate|` +
	`No match for argument: |No package matches '|No provider of '|error: target not found: | \(no such package\):`)

// Hint is what the recipe can do about it, if that shows.
func (e *StepError) Hint() string {
	mend := fault.Mend(e.Err)
	if mend != "" && mend != mendUsr {
		return mend // imgmut knows what it was, whatever the step printed
	}
	if e.Full != "" {
		return e.Full
	}
	for _, k := range knownFailures {
		if k.in(e) && slices.ContainsFunc(e.Tail, k.printed().MatchString) {
			return k.hint
		}
	}
	if mend != "" {
		return mend
	}
	if len(e.Sealed) > 0 && slices.ContainsFunc(e.Tail, readOnly().MatchString) {
		return fmt.Sprintf("commands cannot write below %s, because the kernel of this machine has no vfat: "+
			"steps of the kinds write and copy can, and one that says boot: true", e.Sealed[0].Mountpoint)
	}
	var exit *agent.ExitError
	if len(e.Tail) == 0 && errors.As(e.Err, &exit) && exit.Command == "script" && exit.Code > 0 {
		return "a script ends at the first command that fails, unless its #! line names another shell: set -x in it shows which"
	}
	return ""
}

// readOnly is what programs print where nobody can write: strerror(3), and what others
// make of it.
var readOnly = lazyregexp.New(`(?i)read-only file ?system`)

// VerifyError says that an image is not what it should be.
type VerifyError struct {
	Name   string
	Failed []record.Check
}

// Error has a line for each check that failed.
func (e *VerifyError) Error() string {
	var lines []string
	for _, c := range e.Failed {
		lines = append(lines, fmt.Sprintf("verify %s: %s: %s", e.Name, c.Name, c.Detail))
	}
	return strings.Join(lines, "\n")
}

// Fault implements the method of package fault.
func (e *VerifyError) Fault() string { return string(fault.Verdict) }
