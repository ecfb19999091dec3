package bootc

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
)

// blobsOf is an image of layers, as an OCI image layout in dir, and what Import is given.
func blobsOf(t *testing.T, dir string, labels map[string]string, layers ...[]byte) Source {
	t.Helper()
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      string            `json:"digest"`
		Size        int               `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	blob := func(mediaType string, b []byte) descriptor {
		sum := sha256.Sum256(b)
		name := hex.EncodeToString(sum[:])
		writeFile(t, filepath.Join(dir, "blobs/sha256", name), b)
		return descriptor{MediaType: mediaType, Digest: "sha256:" + name, Size: len(b)}
	}
	asJSON := func(v any) []byte {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	s := Source{Created: time.Unix(1700000000, 0), Labels: labels}
	var diffs []string
	var list []descriptor
	for n, layer := range layers {
		sum := sha256.Sum256(layer)
		diffs = append(diffs, "sha256:"+hex.EncodeToString(sum[:]))
		const kind = "application/vnd.oci.image.layer.v1.tar"
		switch n % 3 { // each way of packing
		case 0:
			list = append(list, blob(kind+"+gzip", packed(t, layer, func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) })))
		case 1:
			list = append(list, blob(kind, layer))
		case 2:
			list = append(list, blob(kind+"+zstd", packed(t, layer, func(w io.Writer) io.WriteCloser {
				z, err := zstd.NewWriter(w)
				if err != nil {
					t.Fatal(err)
				}
				return z
			})))
		}
		s.Layers = append(s.Layers, SourceLayer{list[n].Digest, diffs[n], int64(list[n].Size)})
	}
	s.Config = asJSON(map[string]any{"architecture": "amd64", "os": "linux", "created": s.Created.UTC(),
		"config": map[string]any{"Labels": labels}, "rootfs": map[string]any{"type": "layers", "diff_ids": diffs}})
	s.Manifest = asJSON(map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": blob("application/vnd.oci.image.config.v1+json", s.Config), "layers": list})
	m := blob("application/vnd.oci.image.manifest.v1+json", s.Manifest)
	s.Digest, m.Annotations = m.Digest, map[string]string{"org.opencontainers.image.ref.name": "t"}
	writeFile(t, filepath.Join(dir, "index.json"), asJSON(map[string]any{"schemaVersion": 2, "manifests": []descriptor{m}}))
	writeFile(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	s.Open = func(_ context.Context, n int) (io.ReadCloser, error) {
		return os.Open(filepath.Join(dir, "blobs/sha256", strings.TrimPrefix(s.Layers[n].Digest, "sha256:")))
	}
	return s
}

func packed(t *testing.T, b []byte, by func(io.Writer) io.WriteCloser) []byte {
	t.Helper()
	var out bytes.Buffer
	w := by(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func writeFile(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, b, 0o644)); err != nil {
		t.Fatal(err)
	}
}

// capability is cap_net_raw+ep, as the kernel keeps it.
const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// systemLayers are those of a system that has all that a layer can have.
func systemLayers(t *testing.T) [][]byte {
	return [][]byte{layerOf(t,
		dir("./", 0o755), dir("usr", 0o755), dir("usr/bin", 0o755), dir("usr/lib", 0o755), dir("usr/lib/modules", 0o755),
		dir("usr/lib/modules/6.1", 0o755), reg("usr/lib/modules/6.1/vmlinuz", "kernel"), reg("usr/lib/modules/6.1/initramfs.img", "initrd"),
		reg("usr/lib/os-release", "ID=x\n"), symlink("bin", "usr/bin"), dir("etc", 0o755), reg("etc/passwd",
			"root:x:0:0::/root:/bin/sh\n"), reg("etc/default", "1"),
		dir("var", 0o755), dir("var/lib", 0o755), dir("run", 0o755), dir("proc", 0o755), dir("sys", 0o755), dir("dev", 0o755),
		dir("tmp", 0o1777), dir("sysroot", 0o755), dir("boot", 0o755), symlink("ostree", "sysroot/ostree"),
		entry{Type: tar.TypeReg, Name: "usr/bin/a", Link: "a", Mode: 0o4755}, reg("usr/bin/b", "b"), linkOf(0o4755, "usr/bin/a2", "usr/bin/a"),
		entry{Type: tar.TypeReg, Name: "usr/bin/capped", Link: "c", Mode: 0o755, Records: map[string]string{
			xattrRecord + "security.capability": capability, xattrRecord + "user.note": "x=\x01y"}},
		dir("usr/share", 0o755), entry{Type: tar.TypeDir, Name: "usr/share/group", Mode: 0o2775, UID: 33},
		dir("usr/share/opaque", 0o755), reg("usr/share/opaque/old", "old"), dir("usr/share/opaque/deep", 0o700),
		reg("usr/share/opaque/deep/x", "x"),
		dir("usr/share/becomes", 0o755), reg("usr/share/becomes/file", "f"), reg("usr/share/becomes-dir", "f"),
		dir("usr/share/real", 0o755), symlink("usr/share/to-dir", "real"), symlink("usr/share/to-file", "real"),
		symlink("usr/share/out", "/sysroot/images"), reg("usr/share/no-dir", "f"), dir("usr/share/to-link", 0o755),
		reg("usr/share/to-link/x", "x"), symlink("usr/share/linked", "real"),
		reg("usr/share/Főtanúsítvány.crt", "cert"), reg("usr/share/"+strings.Repeat("long", 40), "long"),
	), layerOf(t,
		reg("usr/bin/.wh.b", ""), linkOf(0o4755, "usr/bin/cross", "usr/bin/a"), linkOf(0o755, "usr/bin/crosscap", "usr/bin/capped"),
		dir("usr/share/opaque", 0o711), reg("usr/share/opaque/new", "new"), reg("usr/share/opaque/.wh..wh..opq", ""),
		reg("usr/share/becomes", "file now"), reg("usr/share/.wh.becomes-dir", ""), dir("usr/share/becomes-dir", 0o750),
		reg("usr/share/becomes-dir/in", "in"),
		dir("usr/share/to-dir", 0o700), reg("usr/share/to-dir/y", "y"), reg("usr/share/to-file", "file"),
		dir("usr/share/out", 0o755), reg("usr/share/out/forged.json", "{}"), dir("usr/share/no-dir", 0o755),
		reg("usr/share/no-dir/z", "z"), symlink("usr/share/to-link", "real"), dir("usr/share/linked", 0o755),
		reg("usr/share/linked/.wh.gone", ""),
		reg("etc/.wh.default", ""), reg("etc/new", "new"),
		entry{Type: tar.TypeChar, Name: "usr/share/null", Mode: 0o666}, reg("var/lib/state", "s"),
	), layerOf(t,
		entry{Type: tar.TypeDir, Name: "usr/share/group", Mode: 0o700, UID: 7, Records: map[string]string{xattrRecord + "user.dir": "1"}},
		reg("usr/share/opaque/later/x", "made up parent"), linkOf(0o4755, "usr/bin/cross3", "usr/bin/cross"), reg("usr/bin/a", "other"),
	)}
}

// linkOf is a hard link with the mode of the file, as all tools write it: buildah goes by
// that.
func linkOf(mode int64, name, to string) entry {
	return entry{Type: tar.TypeLink, Name: name, Link: to, Mode: mode}
}

func repository(t *testing.T) *Repository {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	return &Repository{Dir: filepath.Join(t.TempDir(), "containers"), Room: func(int64) error { return nil },
		Phase: func(text string) { t.Log(text) }, Progress: func(int64, int64) {}}
}

func importing1(t *testing.T, r *Repository, s Source) *Image {
	t.Helper()
	i, err := r.Import(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// TestImportHalfMade: a repository that was not made to its end is made whole.
func TestImportHalfMade(t *testing.T) {
	r := repository(t)
	repo := filepath.Join(r.Dir, "ostree/repo")
	fixtures.Program(t, "", "mkdir", "-p", filepath.Dir(repo))
	fixtures.Program(t, "", "ostree", "init", "--repo="+repo, "--mode=bare")
	for _, dir := range []string{"objects", "refs", "tmp"} {
		if err := os.RemoveAll(filepath.Join(repo, dir)); err != nil {
			t.Fatal(err)
		}
	}
	importing1(t, r, blobsOf(t, t.TempDir(), nil, systemLayers(t)...))
}

// TestImport: the tree of an image is what buildah makes of it.
func TestImport(t *testing.T) {
	r := repository(t)
	layout, err := os.MkdirTemp("", "oci") // buildah wants small letters in the path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(layout)
	layers := systemLayers(t)
	s := blobsOf(t, layout, nil, layers...)
	i := importing1(t, r, s)
	checkout := filepath.Join(t.TempDir(), "tree")
	fixtures.Program(t, "", "ostree", "checkout", "--repo="+filepath.Join(r.Dir, "ostree/repo"), i.Commit, checkout)
	fixtures.SameContainer(t, checkout, layout, "t")
	fixtures.Program(t, "", "ostree", "fsck", "--quiet", "--repo="+filepath.Join(r.Dir, "ostree/repo"))
	for _, key := range []string{"ostree.manifest-digest", "ostree.manifest", "ostree.container.image-config",
		"ostree.bootable", "ostree.linux"} {
		fixtures.Program(t, "", "ostree", "show", "--repo="+filepath.Join(r.Dir, "ostree/repo"), "--print-metadata-key="+key, i.Commit)
	}
	if notes := strings.Join(i.Notes(), "\n"); !strings.Contains(notes, "usr/share/null") || !strings.Contains(notes,
		"below /var (2 entries)") {
		t.Errorf("notes: %s", notes)
	}
	if _, err := os.Stat(filepath.Join(r.Dir, "images/forged.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a layer has written into the repository: %v", err)
	}
	if left, err := os.ReadDir(filepath.Join(r.Dir, work)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it leaves %v, %v", left, err)
	}
	// The same image again is the same commit, and nothing is opened.
	s.Open = func(context.Context, int) (io.ReadCloser, error) { return nil, errors.New("opened") }
	if again := importing1(t, r, s); again.Commit != i.Commit {
		t.Errorf("the second time it is %s, and it was %s", again.Commit, i.Commit)
	}
	// Another image with the same layers below opens only what is new.
	more := blobsOf(t, layout, nil, append(layers, layerOf(t, reg("usr/bin/hello", "hello")))...)
	open := more.Open
	more.Open = func(ctx context.Context, n int) (io.ReadCloser, error) {
		if n != len(layers) {
			t.Errorf("layer %d is opened", n)
		}
		return open(ctx, n)
	}
	second := importing1(t, r, more)
	again := filepath.Join(t.TempDir(), "tree")
	fixtures.Program(t, "", "ostree", "checkout", "--repo="+filepath.Join(r.Dir, "ostree/repo"), second.Commit, again)
	fixtures.SameContainer(t, again, layout, "t")

	// What is not needed goes, and what is needed stays.
	gone, err := r.Collect(t.Context(), func(digest string) bool { return digest == second.Digest }, false)
	if err != nil || len(gone) != 1 || gone[0].Digest != i.Digest {
		t.Errorf("collected %v, %v", gone, err)
	}
	if found, err := r.Find(second.Digest); found == nil || err != nil {
		t.Errorf("the other: %v, %v", found, err)
	}
	fixtures.Program(t, "", "ostree", "fsck", "--quiet", "--repo="+filepath.Join(r.Dir, "ostree/repo"))
	if refs := fixtures.Program(t, "", "ostree", "refs", "--repo="+filepath.Join(r.Dir, "ostree/repo")); len(strings.Fields(refs)) != 5 {
		t.Errorf("refs: %s", refs)
	}
	// Where nothing goes ostree is not asked.
	path := os.Getenv("PATH")
	t.Setenv("PATH", t.TempDir())
	if gone, err := r.Collect(t.Context(), func(string) bool { return true }, false); err != nil || len(gone) != 0 {
		t.Errorf("without ostree, of what is needed: %v, %v", gone, err)
	}
	t.Setenv("PATH", path)
	if _, err := r.Collect(t.Context(), func(string) bool { return false }, false); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is still %s: %v", r.Dir, err)
	}
}

// TestImportSame: an image is the same commit in whatever repository.
func TestImportSame(t *testing.T) {
	s := blobsOf(t, t.TempDir(), nil, systemLayers(t)[:1]...)
	if first, second := importing1(t, repository(t), s), importing1(t, repository(t), s); first.Commit != second.Commit {
		t.Errorf("it is %s, and %s in another repository", first.Commit, second.Commit)
	}
}

// TestImportVersion: what another version has made is made anew, and is the same commit
// whatever else is there.
func TestImportVersion(t *testing.T) {
	r := repository(t)
	s := blobsOf(t, t.TempDir(), nil, systemLayers(t)...)
	first := importing1(t, r, s)
	is := fmt.Sprintf(`"version": %d`, Version)
	for _, kind := range []string{"images", "layers"} {
		records, err := filepath.Glob(filepath.Join(r.Dir, kind, "*.json"))
		if err != nil || len(records) == 0 {
			t.Fatalf("no records: %v", err)
		}
		for _, file := range records {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(b, []byte(is)) {
				t.Fatalf("no version in %s", b)
			}
			writeFile(t, file, bytes.ReplaceAll(b, []byte(is), []byte(`"version": 0`)))
		}
	}
	if i, err := r.Find(s.Digest); i != nil || err != nil {
		t.Errorf("of another version there is %v, %v", i, err)
	}
	opened, open := 0, s.Open
	s.Open = func(ctx context.Context, n int) (io.ReadCloser, error) {
		opened++
		return open(ctx, n)
	}
	if again := importing1(t, r, s); again.Commit != first.Commit || opened != len(s.Layers) {
		t.Errorf("%d layers are made anew, and it is %s; it was %s", opened, again.Commit, first.Commit)
	}
}

// TestImportInterrupted: of an import in which the machine lost its power nothing is
// trusted, and what was there before is there still.
func TestImportInterrupted(t *testing.T) {
	r := repository(t)
	objects := func() (files []string) {
		files, err := filepath.Glob(filepath.Join(r.Dir, "ostree/repo/objects/*/*"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no objects: %v", err)
		}
		return files
	}
	// What was written last is there by its name, and empty; of records there are none.
	interrupt := func(before []string) {
		refs, err := filepath.Glob(filepath.Join(r.Dir, "ostree/repo/refs/heads/imgmut/*/*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range append(objects(), refs...) {
			if !slices.Contains(before, file) {
				if err := os.Truncate(file, 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
		}
		writeFile(t, r.mark(), nil)
	}
	layers := systemLayers(t)
	s := blobsOf(t, t.TempDir(), nil, layers...)
	first := importing1(t, r, s)
	if _, err := os.Stat(r.mark()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a mark is left by an import that has ended: %v", err)
	}
	before := objects()
	refs, err := filepath.Glob(filepath.Join(r.Dir, "ostree/repo/refs/heads/imgmut/*/*"))
	if err != nil {
		t.Fatal(err)
	}
	more := blobsOf(t, t.TempDir(), nil, append(layers, layerOf(t, reg("usr/bin/hello", "hello")))...)
	second := importing1(t, r, more)
	if err := errors.Join(os.Remove(filepath.Join(r.Dir, "images", strings.TrimPrefix(second.Digest, "sha256:")+".json")),
		os.Remove(filepath.Join(r.Dir, "layers", second.Layers[len(layers)].Chain+".json"))); err != nil {
		t.Fatal(err)
	}
	interrupt(append(before, refs...))
	if again := importing1(t, r, more); again.Commit != second.Commit {
		t.Errorf("it is %s, and was %s", again.Commit, second.Commit)
	}
	if i, err := r.Find(s.Digest); err != nil || i == nil || i.Commit != first.Commit {
		t.Errorf("the first is %v, %v", i, err)
	}
	fixtures.Program(t, "", "ostree", "fsck", "--quiet", "--repo="+filepath.Join(r.Dir, "ostree/repo"))

	// Nor is a repository that was being made.
	if err := errors.Join(os.RemoveAll(filepath.Join(r.Dir, "images")), os.RemoveAll(filepath.Join(r.Dir, "layers")),
		os.Truncate(filepath.Join(r.Dir, "ostree/repo/config"), 0)); err != nil {
		t.Fatal(err)
	}
	interrupt(nil)
	if again := importing1(t, r, s); again.Commit != first.Commit {
		t.Errorf("it is %s, and was %s", again.Commit, first.Commit)
	}
	fixtures.Program(t, "", "ostree", "fsck", "--quiet", "--repo="+filepath.Join(r.Dir, "ostree/repo"))
}

// TestImportRefused: what is no image of a system is refused, and so are bytes that are
// others than those the image names. What was there is there still.
func TestImportRefused(t *testing.T) {
	r := repository(t)
	layers := systemLayers(t)
	kernel := layerOf(t, reg("usr/lib/modules/6.2/vmlinuz", "another"))
	for name, c := range map[string]struct {
		layers [][]byte
		change func(*Source)
		want   string
		class  fault.Class
	}{
		"no kernel": {layers: [][]byte{layerOf(t, dir("usr", 0o755), dir("usr/bin", 0o755), reg("etc/x", ""))},
			want: "no kernel", class: fault.Image},
		"two kernels": {layers: append(slices.Clone(layers), kernel), want: "2 kernels", class: fault.Image},
		"no etc": {layers: [][]byte{layerOf(t, reg("usr/lib/modules/6.2/vmlinuz", ""), dir("usr/bin", 0o755))},
			want: "no /etc", class: fault.Image},
		"no name": {layers: [][]byte{layerOf(t, reg("usr/lib/modules/6.2/vmlinuz", ""), dir("usr/bin", 0o755),
			reg("etc/x", ""))}, want: "no /usr/lib/os-release", class: fault.Image},
		"link":  {layers: [][]byte{layerOf(t, link("usr/a", "../../x"))}, want: "out of the tree", class: fault.Image},
		"cut":   {layers: [][]byte{layers[0][:5300]}, want: "damaged", class: fault.Image},
		"empty": {layers: [][]byte{nil}, want: "no kernel", class: fault.Image},
		"other bytes": {layers: layers, want: "unpacks to", class: fault.Image, change: func(s *Source) {
			s.Layers[1].DiffID = "sha256:" + strings.Repeat("0", 64)
		}},
		"not there": {layers: append(slices.Clone(layers), layerOf(t, reg("usr/x", ""))), want: "gone away",
			class: fault.Host, change: func(s *Source) {
				s.Open = func(context.Context, int) (io.ReadCloser, error) { return nil, fault.New(fault.Host, "", "gone away") }
			}},
		"too long": {layers: layers, want: "metadata", class: fault.Image, change: func(s *Source) {
			s.Config = bytes.Repeat([]byte("1"), 200<<10)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := blobsOf(t, t.TempDir(), nil, c.layers...)
			if c.change != nil {
				c.change(&s)
			}
			_, err := r.Import(t.Context(), s)
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.Of(err) != c.class {
				t.Errorf("%v of class %q, want %q", err, fault.Of(err), c.want)
			}
			if i, err := r.Find(s.Digest); i != nil || err != nil {
				t.Errorf("afterwards there is %v, %v", i, err)
			}
			if _, err := os.Stat(filepath.Join(r.Dir, work)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("it leaves %s: %v", work, err)
			}
		})
	}
	// None of these is in the way of one that is right.
	importing1(t, r, blobsOf(t, t.TempDir(), nil, layers...))
	fixtures.Program(t, "", "ostree", "fsck", "--quiet", "--repo="+filepath.Join(r.Dir, "ostree/repo"))
}

// TestEscape: names are those that ostree-ext gives.
func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"sha256:0a":                           "sha256_3A_0a",
		"docker://registry.example/os:latest": "docker_3A__2F__2F_registry_2E_example/os_3A_latest",
		"docker://quay.io/a_b/c-d":            "docker_3A__2F__2F_quay_2E_io/a__b/c-d",
		"docker://localhost:5000/x":           "docker_3A__2F__2F_localhost_3A_5000/x",
	} {
		if got := escape(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
