package agent_test

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/step"
	"golang.org/x/sys/unix"
)

// pipe is a guest whose files are unpacked by this process.
type pipe struct{}

func (pipe) Run(context.Context, agent.Command) error         { return errors.ErrUnsupported }
func (pipe) ReadFile(context.Context, string) ([]byte, error) { return nil, errors.ErrUnsupported }
func (pipe) Stat(context.Context, string) (*agent.Stat, error) {
	return nil, errors.ErrUnsupported
}
func (pipe) Files() fs.FS                    { return nil }
func (pipe) Loaders() (*boot.Loaders, error) { return nil, errors.ErrUnsupported }
func (pipe) Put(_ context.Context, write func(*tar.Writer) error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		done <- agent.Unpack(bufio.NewReaderSize(r, agent.MaxData))
		r.Close()
	}()
	buffered := bufio.NewWriterSize(w, agent.MaxData)
	t := tar.NewWriter(buffered)
	err = errors.Join(write(t), t.Close(), buffered.Flush(), w.Close())
	return errors.Join(err, <-done)
}

// BenchmarkCopy: a tree of 11,000 files, against cp -a.
func BenchmarkCopy(b *testing.B) {
	fixtures.Require(b, fixtures.Root)
	dir := b.TempDir()
	for i := range 110 {
		d := fmt.Sprintf("%s/tree/d%d", dir, i)
		if err := os.MkdirAll(d, 0o755); err != nil {
			b.Fatal(err)
		}
		for j := range 100 {
			if err := os.WriteFile(fmt.Sprintf("%s/f%d", d, j), make([]byte, 5000), 0o644); err != nil {
				b.Fatal(err)
			}
		}
	}
	r, err := os.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for name, copy := range map[string]func(to string) error{
		"imgmut": func(to string) error {
			return (&step.Copy{From: "tree", To: to}).Apply(b.Context(), pipe{}, &step.Source{Root: r})
		},
		"cp": func(to string) error { return exec.Command("cp", "-a", dir+"/tree", to).Run() },
	} {
		b.Run(name, func(b *testing.B) {
			var used time.Duration // by both sides, which tells more than the time on a busy machine
			for b.Loop() {
				b.StopTimer()
				if err := os.RemoveAll(dir + "/to"); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				before := cpuTime()
				if err := copy(dir + "/to"); err != nil {
					b.Fatal(err)
				}
				used += cpuTime() - before
			}
			b.ReportMetric(float64(used.Milliseconds())/float64(b.N), "cpu-ms/op")
		})
	}
}

// cpuTime is what this process and those it waited for have used.
func cpuTime() (sum time.Duration) {
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if err := unix.Getrusage(who, &u); err == nil {
			sum += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return sum
}
