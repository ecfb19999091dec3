package format

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
)

// rawImage makes a raw file of that size, with holes, noise and text that compresses well.
func rawImage(t testing.TB, file string, size int64) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random := rand.New(rand.NewPCG(1, uint64(size)))
	noise := make([]byte, 100_000)
	for at := int64(0); at < size; at += 700_001 {
		for i := range noise {
			noise[i] = byte(random.Uint32())
		}
		part := noise[:min(int64(len(noise)), size-at)]
		if at/700_001%2 == 1 {
			part = bytes.Repeat([]byte("an image that compresses. "), 20_000)
			part = part[:min(int64(len(part)), size-at)]
		}
		if _, err := f.WriteAt(part, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func allow() Options {
	return Options{Room: func(int64) error { return nil }, Progress: func(_, _ int64) {}}
}

// open opens a file as an image, for the time of the test.
func open(t testing.TB, file string, o Options) (*Image, error) {
	t.Helper()
	src, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Close() })
	dir := t.TempDir()
	i, err := Open(t.Context(), src, dir, o)
	if err != nil {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s was left", left)
		}
		return nil, err
	}
	t.Cleanup(func() {
		if err := i.Close(src); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("%s was left", left)
		}
	})
	return i, nil
}

// same says whether an image holds what a raw file does. One that is longer has zeros there.
func same(t *testing.T, i *Image, file string, mayBeLonger bool) {
	t.Helper()
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(i.File, 0, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	if mayBeLonger && len(got) > len(want) {
		want = append(want, make([]byte, len(got)-len(want))...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("the image has %d bytes and differs from the %d that it was made of", len(got), len(want))
	}
}

// TestOpen: what other programs make of a raw image is that image again.
func TestOpen(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	const mib = 1 << 20
	type test struct {
		name, is string
		size     int64
		make     []string // of raw, to out
	}
	tests := []test{
		{"raw", "", 3 * mib, []string{"cp", "raw", "out"}},
		{"raw that ends in some remains", "", 3 * mib, []string{"sh", "-c", "printf conectix >> raw; truncate -s +504 raw; cp raw out"}},
		{"gzip", "gzip", 3 * mib, []string{"sh", "-c", "gzip -c raw > out"}},
		{"gzip in parts",
			"gzip", 3 * mib, []string{"sh", "-c", "(head -c 1000000 raw | gzip; tail -c +1000001 raw | gzip) > out"}},
		{"bzip2", "bzip2", 3 * mib, []string{"sh", "-c", "bzip2 -c raw > out"}},
		{"xz", "xz", 3 * mib, []string{"sh", "-c", "xz -1c raw > out"}},
		{"xz in blocks and streams",
			"xz", 3 * mib, []string{"sh", "-c",
				"(head -c 2000000 raw | xz -1 -T2 --block-size=100KiB; tail -c +2000001 raw | xz -1; head -c 8 /dev/zero) > out"}},
		{"zstd", "zstd", 3 * mib, []string{"zstd", "-q", "raw", "-o", "out"}},
		{"zstd in frames",
			"zstd", 3 * mib, []string{"sh", "-c",
				"(head -c 1000000 raw | zstd; tail -c +1000001 raw | zstd --long=27) > out"}},
		{"zstd between frames that say nothing", "zstd", 3 * mib, []string{"sh", "-c",
			`skip() { printf '\120\052\115\030\004\000\000\000abcd'; }; (skip; zstd -c raw; skip) > out`}},
		{"qcow2 in xz",
			"xz qcow2", 3 * mib, []string{"sh", "-c", "qemu-img convert -O qcow2 raw q && xz -1c q > out"}},
		{"vmdk in zstd",
			"zstd vmdk", 3 * mib, []string{"sh", "-c", "qemu-img convert -O vmdk raw q && zstd -q q -o out"}},
		{"raw that ends in a hole, gzip",
			"gzip", 5*mib + 512, []string{"sh", "-c", "truncate -s 5243392 raw; gzip -c raw > out"}},
	}
	for name, options := range map[string]string{
		"plain":           "",
		"version 2":       "compat=0.10",
		"clusters of 512": "cluster_size=512",
		"clusters of 2M":  "cluster_size=2M",
		"zstd":            "compression_type=zstd",
		"in parts":        "extended_l2=on,cluster_size=128k",
		"all there":       "preallocation=metadata",
	} {
		for _, size := range []int64{3 * mib, 9*mib + 512, 65536 - 512} {
			for _, packed := range []string{"", "-c "} {
				if packed != "" && name == "all there" {
					continue
				}
				o := ""
				if options != "" {
					o = "-o " + options + " "
				}
				tests = append(tests, test{"qcow2 " + name + " " + packed, "qcow2", size,
					[]string{"sh", "-c", "qemu-img convert " + packed + o + "-O qcow2 raw out"}})
			}
		}
	}
	for name, how := range map[string]string{
		"vmdk":        "vmdk",
		"vmdk stream": "vmdk -o subformat=streamOptimized",
		"vdi":         "vdi",
		"vdi fixed":   "vdi -o static=on",
		"vhdx":        "vhdx", "vhdx fixed": "vhdx -o subformat=fixed",
		"vpc": "vpc -o force_size=on", "vpc fixed": "vpc -o subformat=fixed,force_size=on", "vpc rounded": "vpc",
	} {
		is, _, _ := strings.Cut(how, " ")
		tests = append(tests, test{name, is, 9 * mib, []string{"sh", "-c", "qemu-img convert -O " + how + " raw out"}})
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			raw := filepath.Join(dir, "raw")
			rawImage(t, raw, tc.size)
			fixtures.Program(t, "", "env", append([]string{"-C", dir}, tc.make...)...)
			i, err := open(t, filepath.Join(dir, "out"), allow())
			if err != nil {
				t.Fatal(err)
			}
			if strings.Join(i.Is, " ") != tc.is || i.Backed {
				t.Errorf("it is %q, backed %v, want %q", i.Is, i.Backed, tc.is)
			}
			same(t, i, raw, strings.HasPrefix(tc.name, "vpc rounded"))
		})
	}
}
