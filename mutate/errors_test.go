package mutate

import (
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/disk"
)

// TestHintOfAStepWithoutNetwork: what programs print where no name resolves,
// word for word, has the hint; in a step that had the network it has not.
func TestHintOfAStepWithoutNetwork(t *testing.T) {
	const hint = "network: true"
	for program, line := range map[string]string{
		"curl":       "curl: (6) Could not resolve host: example.org",
		"wget":       "wget: unable to resolve host address ‘example.org’",
		"busybox":    "wget: bad address 'example.org'",
		"git":        "fatal: unable to access 'https://example.org/x/': Could not resolve host: example.org",
		"ssh":        "ssh: Could not resolve hostname example.org: Temporary failure in name resolution",
		"apt":        "E: Failed to fetch http://deb.example.org/debian/x.deb  Temporary failure resolving 'deb.example.org'",
		"apt, 2":     "  Could not resolve 'deb.example.org'",
		"dnf":        "[MIRROR] x.rpm: Curl error (6): Couldn't resolve host name for https://example.org/x.rpm",
		"apk":        "WARNING: fetching https://example.org/main: DNS lookup error",
		"pip":        "Failed to establish a new connection: [Errno -2] Name or service not known')': /simple/x/",
		"python":     "socket.gaierror: [Errno -5] No address associated with hostname",
		"npm":        "npm ERR! network request to https://example.org/x failed, reason: getaddrinfo ENOTFOUND example.org",
		"node":       "Error: getaddrinfo EAI_AGAIN registry.example.org",
		"go":         "go: x@v1: Get \"https://example.org/x\": dial tcp: lookup example.org on [::1]:53: connection refused",
		"go, 2":      "Get \"http://x/\": dial tcp: lookup x: no such host",
		"cargo":      "  [6] Couldn't resolve host name (Could not resolve host: index.example.org)",
		"rust":       "error: failed to lookup address information: Temporary failure in name resolution",
		"java":       "java.net.UnknownHostException: repo.example.org",
		"php":        "php_network_getaddresses: getaddrinfo failed: Name or service not known",
		"an address": "nc: connect to 192.0.2.1 port 80 (tcp) failed: Network is unreachable",
		"ping":       "ping: unknown host example.org",
	} {
		e := &StepError{Tail: []string{"before", line, "after"}}
		if !strings.Contains(e.Hint(), hint) {
			t.Errorf("%s: no hint for %q", program, line)
		}
		if e.Network = true; e.Hint() != "" {
			t.Errorf("%s: it had the network, and the hint is %q", program, e.Hint())
		}
	}
	for _, line := range []string{
		"make: *** [Makefile:3: all] Error 2",
		"cannot resolve symbol x",
		"bad address in system call argument",
		"Connection refused",
		"EACCES: permission denied",
	} {
		if got := (&StepError{Tail: []string{line}}).Hint(); got != "" {
			t.Errorf("%q has the hint %q", line, got)
		}
	}
}

// silent is the end of a command that may have printed nothing.
func silent(command string, code int) error {
	return &agent.ExitError{Command: command, Code: code, Reason: "ended"}
}

// TestHintOfAMissingPackage: in the words of each manager.
func TestHintOfAMissingPackage(t *testing.T) {
	for manager, line := range map[string]string{
		"apt":        "E: Unable to locate package nosuch",
		"apt, known": "E: Package 'nosuch' has no installation candidate",
		"dnf":        "No match for argument: nosuch",
		"microdnf":   "error: No package matches 'nosuch'",
		"zypper":     "No provider of 'nosuch' found.",
		"pacman":     "error: target not found: nosuch",
		"apk":        "  nosuch (no such package):",
	} {
		e := &StepError{Kind: "packages", Network: true, Tail: []string{"before", line, "after"}}
		if !strings.Contains(e.Hint(), "check the name") {
			t.Errorf("%s: the hint for %q is %q", manager, line, e.Hint())
		}
	}
}

// TestHintOfAStepThatFailed fits what the recipe says, not only what is printed.
func TestHintOfAStepThatFailed(t *testing.T) {
	const missing, full = "E: Unable to locate package nosuch", "dd: error writing '/x': No space left on device"
	store, esp := ErrNoSpace, []disk.Mounted{{Mountpoint: "/boot/efi"}}
	const shut = "cp: cannot create regular file '/boot/efi/x': Read-only file system"
	for _, tc := range []struct {
		name string
		err  StepError
		want string
	}{
		{"a misspelt package", StepError{Kind: "packages", Network: true, Tail: []string{missing}}, "check the name"},
		{"a package in a script", StepError{Kind: "run", Network: true, Tail: []string{missing}}, "a packages step fetches them"},
		{"a package in a script without network", StepError{Kind: "run", Tail: []string{missing}}, "a packages step fetches them"},
		{"a full filesystem", StepError{Kind: "run", Tail: []string{full}, Full: "give it room"}, "give it room"},
		{"one in which no package is found", StepError{Kind: "packages", Tail: []string{missing}, Full: "give it room"}, "give it room"},
		{"a full store", StepError{Kind: "run", Tail: []string{full}, Err: store, Full: "give it room"}, "imgmut gc"},
		{"a place that nobody can write to", StepError{Kind: "run", Tail: []string{shut}, Sealed: esp}, "below /boot/efi, because"},
		{"where there is none", StepError{Kind: "run", Tail: []string{shut}}, ""},
		{"another fault where there is one", StepError{Kind: "run", Tail: []string{"no"}, Sealed: esp}, ""},
		{"a script without a word", StepError{Kind: "run", Err: silent("script", 1)}, "set -x in it"},
		{"a script that said why", StepError{Kind: "run", Err: silent("script", 1), Tail: []string{"no"}}, ""},
		{"a script that was killed", StepError{Kind: "run", Err: silent("script", -1)}, ""},
		{"a program without a word", StepError{Kind: "run", Err: silent("false", 1)}, ""},
		{"anything else", StepError{Kind: "run", Tail: []string{"no"}}, ""},
	} {
		if got := tc.err.Hint(); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%s: hint %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestHintOfAMissingDisk: in the words of programs that look for one, and only where the
// step had none.
func TestHintOfAMissingDisk(t *testing.T) {
	for program, line := range map[string]string{
		"grub-probe":      "/usr/sbin/grub-probe: error: failed to get canonical path of `/dev/vda1'.",
		"grub-install":    "grub-install: error: cannot find a GRUB drive for /dev/vda.  Check your device.map.",
		"grub-install, 2": "grub-install: error: cannot find a device for /boot/grub (is /dev mounted?).",
		"mkinitramfs":     "mkinitramfs: failed to determine device for /",
		"bootctl":         "Couldn't find EFI system partition. It is recommended to mount it to /boot or /efi.",
	} {
		e := &StepError{Tail: []string{"before", line, "after"}}
		if !strings.Contains(e.Hint(), "boot: true") {
			t.Errorf("%s: the hint is %q", program, e.Hint())
		}
		if e.Boot = true; e.Hint() != "" {
			t.Errorf("%s: it had the disk, and the hint is %q", program, e.Hint())
		}
	}
}
