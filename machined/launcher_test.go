package machined

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
)

// A launcher that reads a word, and makes a tree on a filesystem of its own.
const ownTree = `
read -r word
mkdir "$1"
mount -t tmpfs tmpfs "$1"
cp -a "$2/." "$1"
echo "$word" >"$1/etc/word"
echo launching
shift 2
exec "$@"
`

// What a launcher mounts is seen by the container alone. It becomes systemd-nspawn, and
// what it does not read of the standard input is for the command.
func TestLauncher(t *testing.T) {
	h := openTestHost(t)
	tree := makeTree(t)
	c := payloadContainer(t, tree, "copy", "/etc/word")
	c.RuntimeDirectory = c.Name
	c.Directory = "/run/" + c.Name + "/tree"
	c.Launcher = []string{"/usr/bin/unshare", "--mount", "--propagation", "slave", "sh", "-euc", ownTree, "sh", c.Directory, tree}
	stdin, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	output, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	fmt.Fprint(input, "from the launcher\nand from the command")
	c.Stdin, c.Stdout = stdin, stdout
	m, err := h.Start(t.Context(), c)
	_, _ = stdin.Close(), stdout.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Terminate(t.Context())
	_ = output.SetReadDeadline(time.Now().Add(10 * time.Second))
	lines := bufio.NewScanner(output)
	for _, want := range []string{"launching", "from the launcher"} {
		if lines.Scan(); lines.Text() != want {
			t.Errorf("stdout has %q, want %q", lines.Text(), want)
		}
	}

	pid := fmt.Sprint(mainPID(t, h, m.unit.name))
	name, err := os.ReadFile(hostRoot(h) + "/proc/" + pid + "/comm")
	if err != nil || string(name) != "systemd-nspawn\n" {
		t.Errorf("the unit's main process is %q, %v", name, err)
	}
	place := hostRoot(h) + c.Directory
	if entries, err := os.ReadDir(place); err != nil || len(entries) > 0 {
		t.Errorf("the host sees %v, %v in the container's directory", entries, err)
	}
	for _, mounts := range []string{"/proc/self/mountinfo", hostRoot(h) + "/proc/1/mountinfo"} {
		if text, err := os.ReadFile(mounts); err != nil || strings.Contains(string(text), c.Name) {
			t.Errorf("%s has mounts of the container (%v):\n%s", mounts, err, text)
		}
	}

	_ = input.Close()
	if lines.Scan(); lines.Text() != "and from the command" {
		t.Errorf("stdout ends with %q", lines.Text())
	}
	if err := m.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(filepath.Dir(place)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the container's directory after its end: %v, want not exist", err)
	}
}

// A distribution, with users of its own.
func TestRealTree(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	dir := t.TempDir()
	image, root := filepath.Join(dir, "work.raw"), filepath.Join(dir, "root")
	fixtures.Clone(t, fixtures.Image(t, "bare"), image)
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	runTool(t, "", "mount", "-o", "loop", image, root)
	t.Cleanup(func() { runTool(t, "", "umount", root) }) // once the host is closed

	h := openTestHost(t)
	c := payloadContainer(t, root)
	c.Command = []string{"/bin/sh", "-c", "useradd tester && getent passwd tester && stat -c %U:%G /etc/shadow && echo $0 >&2", "$HOME"}
	run := mustStart(t, h, mapped(c, 1<<31, 1<<31-3))
	if err := run.machine.Wait(t.Context()); err != nil {
		t.Errorf("Wait() = %v, stderr %q", err, run.stderr)
	}
	if got := run.stdout.String(); !strings.HasPrefix(got, "tester:x:1000:") || !strings.HasSuffix(got, "\nroot:shadow\n") {
		t.Errorf("stdout = %q", got)
	}
	if got := run.stderr.String(); got != "$HOME\n" {
		t.Errorf("stderr = %q", got)
	}
}
