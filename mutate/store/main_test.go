package store_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/store"
)

// peerEnv makes the test binary one of the other processes that use a store.
const peerEnv = "IMGMUT_TEST_STORE_PEER"

func TestMain(m *testing.M) {
	if role := os.Getenv(peerEnv); role != "" {
		if err := peer(role, os.Args[1], os.Args[2:]...); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// peer is what another process does: it says "ready", and goes on when its
// standard input ends. Some roles it plays until it is killed.
func peer(role, dir string, args ...string) error {
	ctx := context.Background()
	if role == "open" { // ready before the store is, so that many start at once
		ready()
	}
	s, err := store.Open(ctx, dir, func(line string) { fmt.Println("note", line) })
	if err != nil {
		return err
	}
	switch role {
	case "open":
		fmt.Println("root", s.Root())
	case "lock":
		unlock, err := s.Lock(ctx, args[0])
		if err != nil {
			return err
		}
		ready()
		unlock()
	case "use":
		release, err := s.Use(ctx)
		if err != nil {
			return err
		}
		ready()
		release()
	case "users": // again and again, for as long as it lives
		fmt.Println("ready")
		for {
			release, err := s.Use(ctx)
			if err != nil {
				return err
			}
			time.Sleep(20 * time.Millisecond)
			release()
		}
	case "run":
		run, err := s.Begin(ctx)
		if err != nil {
			return err
		}
		if err := os.WriteFile(run.Path("work.raw"), []byte("half"), 0o600); err != nil {
			return err
		}
		fmt.Println(filepath.Dir(run.Path("x")))
		for _, dir := range args {
			f, err := run.Outside(dir, ".#imgmut-*")
			if err != nil {
				return err
			}
			fmt.Println(f.Name())
		}
		ready()
		return run.Close()
	case "publish":
		run, err := s.Begin(ctx)
		if err != nil {
			return err
		}
		ready()
		for i := range 15 {
			if err := publish(ctx, s, run, store.Layers, fmt.Sprintf("%s-%d", args[0], i), "x"); err != nil {
				return err
			}
			if err := s.Sweep(context.Background()); err != nil {
				return err
			}
		}
		return run.Close()
	case "crash": // publishes for as long as it lives
		run, err := s.Begin(ctx)
		if err != nil {
			return err
		}
		fmt.Println("ready")
		for i := 0; ; i++ {
			if err := publish(ctx, s, run, store.Layers, fmt.Sprintf("%s-%d", args[0], i), "x"); err != nil {
				return err
			}
		}
	}
	return nil
}

func ready() {
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// process is a running peer.
type process struct {
	*exec.Cmd
	out   *bufio.Scanner
	said  []string // before it was ready
	stdin io.Closer
}

// start returns when the peer says that it is ready.
func start(t *testing.T, role, dir string, args ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, append([]string{dir}, args...)...)
	cmd.Env = append(os.Environ(), peerEnv+"="+role)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{Cmd: cmd, out: bufio.NewScanner(stdout), stdin: stdin}
	t.Cleanup(p.kill)
	for p.out.Scan() {
		if p.out.Text() == "ready" {
			return p
		}
		p.said = append(p.said, p.out.Text())
	}
	t.Fatalf("%s: ended before it was ready: %s", role, p.said)
	return nil
}

// finish lets the peer go on, and returns what it says until its good end.
func (p *process) finish(t *testing.T) []string {
	t.Helper()
	p.stdin.Close()
	var said []string
	for p.out.Scan() {
		said = append(said, p.out.Text())
	}
	if err := p.Wait(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	return said
}

// kill ends the peer as a crash does. It may be called twice.
func (p *process) kill() {
	_ = p.Process.Kill()
	_ = p.Wait()
}

// publish makes an object whose disk holds text.
func publish(ctx context.Context, s *store.Store, run *store.Workspace, k store.Kind, name, text string) error {
	file := run.Path(name + ".work")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	return s.Publish(ctx, file, k, name, record{Text: text}, nil)
}

type record struct{ Text string }

// open opens a store in a directory of the test's own. Nothing that goes by
// names, locks and renames clones a file, so any filesystem will do.
func open(t *testing.T) *store.Store {
	t.Helper()
	return openIn(t, t.TempDir())
}

// openIn opens a store in dir, which has been one before: so it is not asked
// whether it can reflink.
func openIn(t *testing.T, dir string) *store.Store {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, string(store.Layers)), 0o700); err != nil {
		t.Fatal(err)
	}
	return reopen(t, dir)
}

func reopen(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir, func(line string) { t.Errorf("note: %s", line) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func begin(t *testing.T, s *store.Store) *store.Workspace {
	t.Helper()
	run, err := s.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := run.Close(); err != nil {
			t.Error(err)
		}
	})
	return run
}

func mustPublish(t *testing.T, s *store.Store, run *store.Workspace, k store.Kind, name, text string) {
	t.Helper()
	if err := publish(t.Context(), s, run, k, name, text); err != nil {
		t.Fatal(err)
	}
}

// ext4Dir is where a store needs a pool; the pool is unmounted in the end.
func ext4Dir(t *testing.T) string {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Reflink)
	dir := fixtures.PlainDir(t)
	t.Cleanup(func() {
		for range mounts(t, dir) {
			unmount(t, filepath.Join(dir, "pool"))
		}
	})
	return dir
}

func unmount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Errorf("unmount %s: %v", dir, err)
		_ = unix.Unmount(dir, unix.MNT_DETACH) // the directory is removed next
	}
}

// mounts lists what is mounted below dir, as /proc/self/mounts has it.
func mounts(t *testing.T, dir string) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(strings.Fields(line)[1], dir+"/") {
			list = append(list, line)
		}
	}
	return list
}
