package content_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/reflink"
)

// measured is what summing an image and a fork of it cost a process.
type measured struct {
	Digest string
	Memory int64 // KiB that the process had at most
	Took   time.Duration
}

// sumForks is the variable by which this test program is told to be the process
// that is measured: the image and its fork.
const sumForks = "CONTENT_TEST_SUM_FORKS"

func TestMain(m *testing.M) {
	files := os.Getenv(sumForks)
	if files == "" {
		os.Exit(m.Run())
	}
	if err := sumAndUpdate(strings.Split(files, "\n")); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func sumAndUpdate(files []string) error {
	started := time.Now()
	var opened [2]*os.File
	for i := range opened {
		f, err := os.Open(files[i])
		if err != nil {
			return err
		}
		defer f.Close()
		opened[i] = f
	}
	sums, err := content.Sum(context.Background(), opened[0], nil)
	if err != nil {
		return err
	}
	list, err := sums.MarshalBinary() // as the store keeps them
	if err != nil {
		return err
	}
	sums = new(content.Sums)
	if err := sums.UnmarshalBinary(list); err != nil {
		return err
	}
	if sums, err = sums.Update(context.Background(), opened[0], opened[1]); err != nil {
		return err
	}
	// Not ru_maxrss of getrusage(2), which a process has from its parent.
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	m := measured{Digest: sums.Digest(), Took: time.Since(started)}
	if _, err := fmt.Sscan(peak, &m.Memory); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(m)
}

// TestCostIsThatOfTheData: what a file could hold costs nothing, neither memory
// nor time.
func TestCostIsThatOfTheData(t *testing.T) {
	for _, c := range []struct {
		name string
		size int64
	}{
		{"32 TiB", 32 << 40},
		{"4 EiB", 4 << 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := reflinkDir(t)
			image := create(t, filepath.Join(dir, "image"))
			truncate(t, image, c.size)
			for i := range int64(2000) { // one block in every other
				writeAt(t, image, c.size/2+2*i*4096, random(uint64(i), 4096))
			}
			writeAt(t, image, c.size-4096, random(1, 4096))
			f := fork(t, image, filepath.Join(dir, "fork"))
			writeAt(t, f, c.size/4, random(2, 4096))
			writeAt(t, f, c.size-4096, make([]byte, 4096))

			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), sumForks+"="+image.Name()+"\n"+f.Name())
			out, err := cmd.Output()
			if err != nil {
				var exit *exec.ExitError
				_ = errors.As(err, &exit)
				t.Fatalf("%v: %.2000s", err, exit.Stderr)
			}
			var got measured
			if err := json.Unmarshal(out, &got); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d MiB in %v", got.Memory>>10, got.Took)
			if got.Memory > 64<<10 || got.Took > 10*time.Second {
				t.Errorf("took %d MiB and %v, want 64 MiB and 10 s at most", got.Memory>>10, got.Took)
			}
			if want := digest(t, f); got.Digest != want {
				t.Errorf("Update gives %s, Sum %s", got.Digest, want)
			}
		})
	}
}

// TestTooMuchDataIsRefused: data that is shared all over a file takes little room
// on the disk, but its list would take as much as that of any.
func TestTooMuchDataIsRefused(t *testing.T) {
	f := create(t, filepath.Join(reflinkDir(t), "f"))
	n := int64(128 << 20)
	writeAt(t, f, 0, make([]byte, n))
	for ; n <= content.MaxData; n *= 2 {
		if err := reflink.CloneRange(f, n, f, 0, n); err != nil {
			t.Fatal(err)
		}
	}
	started := time.Now()
	_, err := content.Sum(t.Context(), f, nil)
	if fault.Of(err) != fault.Image || !strings.Contains(err.Error(), "more than 4 TiB") {
		t.Errorf("error %v, want one of the image's", err)
	}
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("refused after %v", took)
	}
}
