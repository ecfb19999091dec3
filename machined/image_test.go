package machined

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// rootTypes are the partition types by which systemd finds a root filesystem
// (Discoverable Partitions Specification).
var rootTypes = map[string]string{
	"amd64": "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
	"arm64": "b921b045-1df0-41c3-af44-4c6f280d3fae",
}

// makeImage makes an image of such a tree as makeTree makes: an ext4 filesystem
// that fills the file or, if partitioned, is the root partition of a GPT disk.
func makeImage(t *testing.T, partitioned bool) string {
	t.Helper()
	dir := t.TempDir()
	fs := filepath.Join(dir, "fs.raw")
	runTool(t, "", "mkfs.ext4", "-q", "-d", makeTree(t), fs, "16M")
	if !partitioned {
		return fs
	}
	disk := filepath.Join(dir, "disk.raw")
	if err := os.WriteFile(disk, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(disk, 18<<20); err != nil {
		t.Fatal(err)
	}
	runTool(t, "label: gpt\nstart=2048, size=32768, type="+rootTypes[runtime.GOARCH]+"\n", "sfdisk", "-q", disk)
	copyAt(t, disk, fs, 2048*512)
	return disk
}

func runTool(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if !filepath.IsAbs(name) {
		if path, err := exec.LookPath("/usr/sbin/" + name); err == nil {
			cmd = exec.Command(path, args...)
		}
	}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

func copyAt(t *testing.T, dst, src string, offset int64) {
	t.Helper()
	data, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(dst, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(data, offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestImages(t *testing.T) {
	h := openTestHost(t)
	pool, err := h.PoolPath(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, layout := range []string{"bare", "partitioned"} {
		t.Run(layout, func(t *testing.T) {
			testPool(t, h, pool, makeImage(t, layout == "partitioned"))
		})
	}
}

// testPool registers image under a new name in the machine's own pool and
// removes it again.
func testPool(t *testing.T, h *Host, pool, image string) {
	ctx := t.Context()
	name := "imgmut-test-" + rand.Text()
	if _, err := h.ImageOSRelease(ctx, name); !errors.Is(err, ErrNoImage) {
		t.Errorf("ImageOSRelease before registering = %v, want ErrNoImage", err)
	}
	path := filepath.Join(pool, name+".raw")
	t.Cleanup(func() { _ = os.Remove(path) })
	if err := os.MkdirAll(pool, 0o700); err != nil {
		t.Fatal(err)
	}
	placeImage(t, image, path)

	fields, err := h.ImageOSRelease(ctx, name)
	if err != nil || fields["ID"] != "imgmut-test" {
		t.Errorf("ImageOSRelease = %v, %v, want ID imgmut-test", fields, err)
	}
	if err := os.Remove(path); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := h.ImageOSRelease(ctx, name)
		if errors.Is(err, ErrNoImage) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("ImageOSRelease after removing = %v, want ErrNoImage", err)
		}
	}
}

// placeImage copies and renames, as a pool may be on another filesystem.
func placeImage(t *testing.T, from, to string) {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	tmp, err := os.Create(filepath.Join(filepath.Dir(to), ".#"+filepath.Base(to)))
	if err != nil {
		t.Fatal(err)
	}
	defer tmp.Close()
	defer os.Remove(tmp.Name())
	if _, err := io.Copy(tmp, src); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp.Name(), to); err != nil {
		t.Fatal(err)
	}
}
