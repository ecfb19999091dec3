package mount_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/mount"
)

const mib = 1 << 20

func TestAttachShowsTheFile(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	for _, c := range []struct {
		name   string
		o      mount.LoopOptions
		offset int64
		size   int64
	}{
		{"whole", mount.LoopOptions{}, 0, 4 * mib},
		{"from an offset", mount.LoopOptions{Offset: mib}, mib, 3 * mib},
		{"a part", mount.LoopOptions{Offset: mib, Size: mib}, mib, mib},
		{"a part at an odd sector", mount.LoopOptions{Offset: 63 * 512, Size: 513 * 512}, 63 * 512, 513 * 512},
		{"read-only", mount.LoopOptions{ReadOnly: true}, 0, 4 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, bytesOf := disk(t)
			dev := attach(t, f, c.o)
			got, err := io.ReadAll(dev)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, bytesOf[c.offset:c.offset+c.size]) {
				t.Errorf("the device shows %d bytes, want %d, or others", len(got), c.size)
			}
			if n, err := unix.IoctlGetInt(int(dev.Fd()), unix.BLKSSZGET); n != 512 || err != nil {
				t.Errorf("sectors of %d bytes, %v; want 512", n, err)
			}
			sys := filepath.Join("/sys/block", filepath.Base(dev.Name()))
			for name, want := range map[string]string{
				"ro": flag(c.o.ReadOnly), "loop/autoclear": "1", "loop/partscan": "0", "loop/backing_file": f.Name(),
			} {
				if b, err := os.ReadFile(filepath.Join(sys, name)); strings.TrimSpace(string(b)) != want {
					t.Errorf("%s is %q, %v; want %q", name, b, err, want)
				}
			}
		})
	}
}

func flag(b bool) string { return map[bool]string{false: "0", true: "1"}[b] }

func TestAttachWritesThrough(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	f, want := disk(t)
	dev := attach(t, f, mount.LoopOptions{Offset: mib, Size: mib})
	sector := bytes.Repeat([]byte{0xa5}, 512)
	if _, err := dev.WriteAt(sector, 1024); err != nil {
		t.Fatal(err)
	}
	if err := dev.Sync(); err != nil {
		t.Fatal(err)
	}
	copy(want[mib+1024:], sector)
	if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the write is not in the file, or not alone (%v)", err)
	}
}

func TestAttachReadOnlyRefusesWriting(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	f, _ := disk(t)
	dev := attach(t, f, mount.LoopOptions{ReadOnly: true})
	w, err := os.OpenFile(dev.Name(), os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer w.Close()
	_, err = w.WriteAt(make([]byte, 512), 0)
	if errors.Join(err, w.Sync()) == nil {
		t.Error("a read-only device was written to")
	}
}

func TestAttachRefuses(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	f, _ := disk(t)
	f.Close()
	if dev, err := mount.Loop(f, mount.LoopOptions{}); err == nil {
		dev.Close()
		t.Error("attached a closed file")
	}
	pipe, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pipe.Close()
	defer w.Close()
	if dev, err := mount.Loop(pipe, mount.LoopOptions{}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("attach a pipe: %v, want EINVAL", err)
		if err == nil {
			dev.Close()
		}
	}
}

// TestAttachAtOnce has many take the same free number, and one win.
func TestAttachAtOnce(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	const n = 12
	files, devices := make([]*os.File, n), make([]*mount.Device, n)
	for i := range files {
		files[i], _ = disk(t)
	}
	var wg sync.WaitGroup
	for i, f := range files {
		wg.Go(func() {
			dev, err := mount.Loop(f, mount.LoopOptions{})
			if err != nil {
				t.Error(err)
				return
			}
			devices[i] = dev
		})
	}
	wg.Wait()
	for i, dev := range devices {
		if dev == nil {
			continue
		}
		if got, err := mount.FindLoop(files[i]); got != dev.Name() || err != nil {
			t.Errorf("Find = %q, %v; want %s", got, err, dev.Name())
		}
		dev.Close()
		released(t, files[i].Name())
	}
}

// TestAttachWaitsForAClaim: a device that the kernel offers as free may be
// claimed for a moment, by a mount that ends.
func TestAttachWaitsForAClaim(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		t.Fatal(err)
	}
	claim, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(150*time.Millisecond, func() { claim.Close() })
	f, _ := disk(t)
	attach(t, f, mount.LoopOptions{})
}

func TestFindGoesByTheFile(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	f, _ := disk(t)
	find := func(f *os.File) string {
		t.Helper()
		path, err := mount.FindLoop(f)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	if got := find(f); got != "" {
		t.Errorf("not attached, and found at %s", got)
	}
	part := attach(t, f, mount.LoopOptions{Offset: mib})
	limited := attach(t, f, mount.LoopOptions{Size: mib})
	if got := find(f); got != "" {
		t.Errorf("attached in part at %s and %s, and found at %s", part.Name(), limited.Name(), got)
	}
	dev := attach(t, f, mount.LoopOptions{})
	if got := find(f); got != dev.Name() {
		t.Errorf("found at %q, want %s", got, dev.Name())
	}
	link := f.Name() + "-link"
	if err := os.Link(f.Name(), link); err != nil {
		t.Fatal(err)
	}
	other, err := os.Open(link)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if got := find(other); got != dev.Name() {
		t.Errorf("by another name found at %q, want %s", got, dev.Name())
	}
	copied, _ := disk(t)
	if got := find(copied); got != "" {
		t.Errorf("a file of the same bytes is found at %s", got)
	}
}

func TestCloseLetsGo(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	f, _ := disk(t)
	dev, err := mount.Loop(f, mount.LoopOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Close(); err != nil {
		t.Fatal(err)
	}
	released(t, f.Name())
	if got, err := mount.FindLoop(f); got != "" || err != nil {
		t.Errorf("still found at %s, %v", got, err)
	}
}

// TestMountKeepsTheDevice: it may be closed once it is mounted, and goes with the mount.
func TestMountKeepsTheDevice(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	f, _ := disk(t)
	mkfs(t, f)
	dev := attach(t, f, mount.LoopOptions{})
	dir := t.TempDir()
	if err := unix.Mount(dev.Name(), dir, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	unmount := sync.OnceValue(func() error { return unix.Unmount(dir, 0) })
	t.Cleanup(func() { _ = unmount() })
	dev.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := mount.WaitReleased(ctx, f.Name()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("mounted, and WaitReleased = %v", err)
	}
	if got, err := mount.FindLoop(f); got != dev.Name() || err != nil {
		t.Errorf("mounted, and found at %q, %v", got, err)
	}
	if err := unmount(); err != nil {
		t.Fatal(err)
	}
	released(t, f.Name())
}

func TestWaitReleased(t *testing.T) {
	fixtures.Require(t, fixtures.Root)
	released(t, filepath.Join(t.TempDir(), "never-attached"))
	f, _ := disk(t)
	dev := attach(t, f, mount.LoopOptions{ReadOnly: true})

	t.Run("waits until the last user is gone", func(t *testing.T) {
		done := make(chan error, 1)
		go func() { done <- mount.WaitReleased(t.Context(), f.Name()) }()
		select {
		case err := <-done:
			t.Fatalf("returned %v while %s is attached", err, dev.Name())
		case <-time.After(30 * time.Millisecond):
		}
		second, err := os.Open(dev.Name()) // a user that outlives the first
		if err != nil {
			t.Fatal(err)
		}
		dev.Close()
		select {
		case err := <-done:
			t.Fatalf("returned %v while %s is open", err, dev.Name())
		case <-time.After(30 * time.Millisecond):
		}
		second.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Run("names the holder when the context ends", func(t *testing.T) {
		dev := attach(t, f, mount.LoopOptions{})
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		err := mount.WaitReleased(ctx, f.Name())
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), dev.Name()) || !strings.Contains(err.Error(), f.Name()) {
			t.Errorf("%v, want the cause, the device and the file", err)
		}
	})
	for name, path := range map[string]func(t *testing.T) string{
		"by a symbolic link": func(t *testing.T) string {
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(filepath.Dir(f.Name()), link); err != nil {
				t.Fatal(err)
			}
			return filepath.Join(link, filepath.Base(f.Name()))
		},
		"by a relative path": func(t *testing.T) string {
			t.Chdir(filepath.Dir(f.Name()))
			return filepath.Base(f.Name())
		},
		"by a path that is not clean": func(t *testing.T) string {
			return filepath.Dir(f.Name()) + "/.//" + filepath.Base(f.Name())
		},
	} {
		t.Run(name, func(t *testing.T) {
			attach(t, f, mount.LoopOptions{})
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
			defer cancel()
			if err := mount.WaitReleased(ctx, path(t)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v while the file is attached", err)
			}
		})
	}
	t.Run("of a removed file", func(t *testing.T) {
		gone, _ := disk(t)
		attach(t, gone, mount.LoopOptions{})
		if err := os.Remove(gone.Name()); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		if err := mount.WaitReleased(ctx, gone.Name()); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v while the file is attached", err)
		}
	})
	t.Run("ignores files with a longer or shorter name", func(t *testing.T) {
		attach(t, f, mount.LoopOptions{})
		released(t, f.Name()+"x")
		released(t, f.Name()[:len(f.Name())-1])
	})
}

// disk is a file of 4 MiB in which no two sectors are equal.
func disk(t *testing.T) (*os.File, []byte) {
	t.Helper()
	b := make([]byte, 4*mib)
	for i := 0; i < len(b); i += 512 {
		copy(b[i:], "sector "+strconv.Itoa(i/512))
	}
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "disk.raw"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		f.Close()
		released(t, f.Name()) // the devices are closed by now: cleanups run in reverse
	})
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	return f, b
}

func attach(t *testing.T, f *os.File, o mount.LoopOptions) *mount.Device {
	t.Helper()
	dev, err := mount.Loop(f, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() }) // Double Close is harmless.
	return dev
}

// released fails the test unless the file is let go of soon.
func released(t *testing.T, path string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := mount.WaitReleased(ctx, path); err != nil {
		t.Error(err)
	}
}

func mkfs(t *testing.T, f *os.File) {
	t.Helper()
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", f.Name()).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
}
