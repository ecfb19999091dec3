package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/mount"
)

// TestMain lets scripts run this binary as imgmut, and lets imgmut run it as
// what it runs itself as: the agent, the first process of a private host, and the
// program of a guest's unit.
func TestMain(m *testing.M) {
	inside := []string{agent.Arg, agent.ServeArg, agent.InitArg, privateHostArg, treeArg}
	if len(os.Args) > 1 && slices.Contains(inside, os.Args[1]) {
		os.Exit(run(os.Args, os.Stdout, os.Stderr))
	}
	testscript.Main(m, map[string]func(){
		"imgmut": func() { os.Exit(run(os.Args, os.Stdout, os.Stderr)) },
	})
}

// TestScript runs testdata/script: standard output, standard error and exit
// status of every command as people and scripts meet them, on real images.
func TestScript(t *testing.T) { runScripts(t, "testdata/script", fixtures.Layouts) }

// runScripts runs the scripts of a directory. Each has the images of some layouts in
// variables of their names.
func runScripts(t *testing.T, scripts string, layouts []string) {
	fixtures.Require(t, fixtures.Root, fixtures.Reflink, fixtures.Systemd, fixtures.Tools)
	dir := fixtures.ReflinkDir(t)
	images := map[string]string{}
	for _, layout := range layouts {
		// One copy on the reflink filesystem; scripts get forks of it.
		images[layout] = filepath.Join(dir, layout+".raw")
		fixtures.Clone(t, fixtures.Image(t, layout), images[layout])
	}
	testscript.Run(t, testscript.Params{
		Dir:                 scripts,
		UpdateScripts:       os.Getenv("UPDATE_SCRIPTS") != "",
		RequireExplicitExec: true,
		Condition: func(name string) (bool, error) { // [vfat]: the kernel has it
			if name != "vfat" {
				return false, fmt.Errorf("unknown condition %s", name)
			}
			return mount.KernelHas("vfat"), nil
		},
		Setup: func(e *testscript.Env) error {
			// Its own store, on a filesystem that reflinks.
			store, err := os.MkdirTemp(dir, "store-")
			if err != nil {
				return err
			}
			e.Setenv("IMGMUT_STORE", store)
			e.Setenv("IMGMUT_PROGRESS", "plain")
			e.Setenv("FIXTURES", fixtures.Dir())
			for layout, path := range images {
				e.Setenv(strings.ToUpper(strings.ReplaceAll(layout, "-", "_")), path)
			}
			e.Defer(func() { os.RemoveAll(store) })
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exit": exitCmd, "interrupt": interruptCmd, "sh": shCmd, "clean": cleanCmd,
			"serve": serveCmd, "fork": forkCmd, "same": sameCmd, "poke": pokeCmd, "disk": diskCmd, "fstab": fstabCmd, "peek": peekCmd,
			"inside": insideCmd, "look": lookCmd,
		},
	})
}

// exitCmd: exit STATUS COMMAND… runs a command and wants that exit status.
// Standard output and error are there for the commands after it.
func exitCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exit STATUS COMMAND…")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if err != nil {
		var code int
		if _, scanErr := fmt.Sscanf(err.Error(), "exit status %d", &code); scanErr != nil {
			ts.Fatalf("%s: %v", args[1], err)
		}
		got = code
	}
	if want := args[0]; fmt.Sprint(got) != want {
		ts.Fatalf("exit status %d, want %s", got, want)
	}
}

// serveCmd: serve has a web server give the files of the working directory, at $URL, and
// write down in the file requests what it was asked for. It breaks off all the time.
func serveCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: serve")
	}
	dir := ts.MkAbs(".")
	files := http.FileServer(http.Dir(dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		log, err := os.OpenFile(filepath.Join(dir, "requests"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err == nil {
			fmt.Fprintln(log, r.URL.Path, r.Header.Get("Range"))
			log.Close()
		}
		files.ServeHTTP(&breaking{w, 24 << 20}, r)
	}))
	ts.Defer(server.Close)
	ts.Setenv("URL", server.URL)
}

// breaking is an answer that breaks off after so many bytes.
type breaking struct {
	http.ResponseWriter
	left int
}

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) > b.left {
		_, _ = b.ResponseWriter.Write(p[:b.left])
		panic(http.ErrAbortHandler)
	}
	b.left -= len(p)
	return b.ResponseWriter.Write(p)
}

// forkCmd: fork SOURCE DEST makes a writable copy of an image.
func forkCmd(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(ts.Exec("cp", "--reflink=auto", "--sparse=always", args[0], ts.MkAbs(args[1])))
	ts.Check(os.Chmod(ts.MkAbs(args[1]), 0o644))
}

// sameCmd: same A B compares the bytes of two files.
func sameCmd(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("cmp", "--", ts.MkAbs(args[0]), ts.MkAbs(args[1]))
	if (err == nil) == neg {
		ts.Fatalf("same %s %s: %v", args[0], args[1], err)
	}
}

// pokeCmd: poke FILE OFFSET TEXT overwrites bytes; a negative offset counts
// from the end.
func pokeCmd(ts *testscript.TestScript, neg bool, args []string) {
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	var off int64
	_, err = fmt.Sscan(args[1], &off)
	ts.Check(err)
	if off < 0 {
		fi, err := f.Stat()
		ts.Check(err)
		off += fi.Size()
	}
	_, err = f.WriteAt([]byte(args[2]), off)
	ts.Check(err)
}

// shCmd: sh SCRIPT runs a shell script that must succeed.
func shCmd(ts *testscript.TestScript, neg bool, args []string) {
	if err := ts.Exec("sh", "-euc", strings.Join(args, " ")); (err == nil) == neg {
		ts.Fatalf("sh: %v", err)
	}
}

// interruptCmd: interrupt SIGNAL STATUS TEXT COMMAND… runs a command, sends it a
// signal when it has printed a text on standard error, and wants that exit
// status (-1: ended by the signal).
func interruptCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: interrupt SIGNAL STATUS TEXT COMMAND…")
	}
	signal := unix.SignalNum(args[0])
	if signal == 0 {
		ts.Fatalf("no signal is called %s: want SIGTERM or the like", args[0])
	}
	program, err := execpath(ts, args[3])
	ts.Check(err)
	out, err := os.CreateTemp(ts.MkAbs("."), "interrupt-")
	ts.Check(err)
	defer out.Close()
	cmd := exec.Command(program, args[4:]...)
	cmd.Dir, cmd.Stderr, cmd.Stdout = ts.MkAbs("."), out, ts.Stdout()
	for _, k := range []string{"PATH", "HOME", "TMPDIR", "IMGMUT_STORE", "IMGMUT_PROGRESS"} {
		cmd.Env = append(cmd.Env, k+"="+ts.Getenv(k))
	}
	ts.Check(cmd.Start())
	if !within(30*time.Second, func() bool { return strings.Contains(ts.ReadFile(out.Name()), args[2]) }) {
		cmd.Process.Kill()
		ts.Fatalf("it did not come to print %q:\n%s", args[2], ts.ReadFile(out.Name()))
	}
	ts.Check(cmd.Process.Signal(signal))
	ended := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	cmd.Wait()
	if !ended.Stop() {
		ts.Fatalf("%s did not end it:\n%s", args[0], ts.ReadFile(out.Name()))
	}
	fmt.Fprint(ts.Stderr(), ts.ReadFile(out.Name()))
	if got := cmd.ProcessState.ExitCode(); fmt.Sprint(got) != args[1] {
		ts.Fatalf("exit status %d, want %s:\n%s", got, args[1], ts.ReadFile(out.Name()))
	}
}

// execpath finds a program in the script's own PATH.
func execpath(ts *testscript.TestScript, name string) (string, error) {
	for dir := range strings.SplitSeq(ts.Getenv("PATH"), ":") {
		if path := filepath.Join(dir, name); exec.Command("test", "-x", path).Run() == nil {
			return path, nil
		}
	}
	return "", exec.ErrNotFound
}

// cleanCmd: clean wants that nothing is left of an imgmut with this store: no
// run directory, loop device, mount, process or cgroup.
func cleanCmd(ts *testscript.TestScript, neg bool, args []string) {
	store := ts.Getenv("IMGMUT_STORE")
	var left []string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		left = leftovers(store)
		if (len(left) == 0) != neg || time.Now().After(deadline) {
			break
		}
	}
	if (len(left) > 0) != neg {
		ts.Fatalf("left over: %q", left)
	}
}

// loopsOn lists the loop devices on files of the filesystem that the store is
// on. Their names tell nothing: that of a file which was attached in a mount
// namespace that is gone is cut short.
func loopsOn(store string) []string {
	var fs unix.Stat_t
	if unix.Stat(store, &fs) != nil {
		return nil
	}
	var left []string
	devices, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, d := range devices {
		f, err := os.Open("/dev/" + strings.Split(d, "/")[3])
		if err != nil {
			continue
		}
		info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
		f.Close()
		if err == nil && info.Device == fs.Dev {
			left = append(left, fmt.Sprintf("%s on inode %d", f.Name(), info.Inode))
		}
	}
	return left
}

func leftovers(store string) []string {
	left, _ := filepath.Glob(filepath.Join(store, "tmp", "*"))
	for _, kind := range []string{"bases", "layers", "images"} {
		half, _ := filepath.Glob(filepath.Join(store, kind, ".new-*"))
		left = append(left, half...)
		raws, _ := filepath.Glob(filepath.Join(store, kind, "*.raw"))
		for _, raw := range raws {
			if _, err := os.Stat(strings.TrimSuffix(raw, ".raw") + ".json"); err != nil {
				left = append(left, raw)
			}
		}
	}
	left = append(left, loopsOn(store)...)
	if mounts, err := os.ReadFile("/proc/self/mountinfo"); err == nil && strings.Contains(string(mounts), store) {
		left = append(left, "mount")
	}
	cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, c := range cmdlines {
		b, _ := os.ReadFile(c) // of a process that may be gone
		if line := string(b); strings.Contains(line, store) && strings.Contains(line, "systemd-nspawn") {
			left = append(left, strings.ReplaceAll(line, "\x00", " "))
		}
	}
	return left
}
