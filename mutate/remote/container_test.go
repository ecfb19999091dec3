package remote

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
)

// putter puts a blob somewhere.
type putter func(mediaType string, b []byte) ocispec.Descriptor

func asJSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// container puts an image of layers, which are not compressed, and gives its manifest.
func (put putter) container(t testing.TB, arch string, layers ...[]byte) ocispec.Descriptor {
	t.Helper()
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: arch}, RootFS: ocispec.RootFS{Type: "layers"},
		Config: ocispec.ImageConfig{Labels: map[string]string{"a": "label"}}}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, l := range layers {
		m.Layers = append(m.Layers, put(ocispec.MediaTypeImageLayer, l))
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
	}
	m.Config = put(ocispec.MediaTypeImageConfig, asJSON(t, config))
	d := put(ocispec.MediaTypeImageManifest, asJSON(t, m))
	d.Platform = &ocispec.Platform{OS: "linux", Architecture: arch}
	return d
}

func (put putter) index(t testing.TB, list ...ocispec.Descriptor) ocispec.Descriptor {
	t.Helper()
	return put(ocispec.MediaTypeImageIndex, asJSON(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: list}))
}

// tagged is a descriptor as an index has it.
func tagged(d ocispec.Descriptor, tag string) ocispec.Descriptor {
	d.Annotations = map[string]string{ocispec.AnnotationRefName: tag}
	return d
}

// ociLayout is a directory that is one.
func ociLayout(t testing.TB, dir string) (put putter, finish func(list ...ocispec.Descriptor)) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	put = func(mediaType string, b []byte) ocispec.Descriptor {
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		if err := os.WriteFile(filepath.Join(dir, "blobs/sha256", d.Digest.Encoded()), b, 0o644); err != nil {
			t.Fatal(err)
		}
		return d
	}
	return put, func(list ...ocispec.Descriptor) {
		b := asJSON(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: list})
		if err := os.WriteFile(filepath.Join(dir, "index.json"), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// wantLayers fetches all layers of an image and compares them.
func wantLayers(t *testing.T, c *Container, layers ...[]byte) {
	t.Helper()
	if len(c.Layers) != len(layers) {
		t.Fatalf("it has %d layers, want %d", len(c.Layers), len(layers))
	}
	for n, want := range layers {
		part := filepath.Join(t.TempDir(), "part")
		if err := fetcher(t).Get(t.Context(), c.Layers[n].File, part); err != nil {
			t.Errorf("layer %d: %v", n+1, err)
		} else if got, err := os.ReadFile(part); err != nil || !bytes.Equal(got, want) {
			t.Errorf("layer %d: %d bytes, %v", n+1, len(got), err)
		}
		if c.Layers[n].DiffID != digest.FromBytes(want).String() {
			t.Errorf("layer %d: %s", n+1, c.Layers[n].DiffID)
		}
	}
}

// TestContainerLayout: an image of a directory, or of a tar of that, by its tag, its
// digest, or because it is the only one, and for the architecture that is asked for.
func TestContainerLayout(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "oci")
	put, finish := ociLayout(t, dir)
	a, b := []byte(strings.Repeat("layer a ", 5000)), []byte("layer b")
	one := put.container(t, "amd64", a, b)
	other := put.container(t, "arm64", b)
	both := put.index(t, other, one)
	finish(tagged(one, "one"), tagged(other, "other"), tagged(both, "both"))
	single := filepath.Join(t.TempDir(), "single")
	putOne, finishOne := ociLayout(t, single)
	finishOne(putOne.container(t, "amd64", a))
	many := filepath.Join(t.TempDir(), "many")
	putMany, finishMany := ociLayout(t, many)
	finishMany(putMany.container(t, "arm64", b), putMany.container(t, "amd64", a))
	for _, transport := range []string{OCI, OCIArchive} {
		at := func(dir string) string {
			if transport == OCI {
				return dir
			}
			file := dir + ".tar"
			fixtures.Program(t, "", "tar", "--create", "--file="+file, "--directory="+dir, ".")
			return file
		}
		for _, c := range []struct {
			ref    Reference
			arch   string
			want   string // an error
			layers [][]byte
		}{
			{ref: Reference{Name: at(dir), Tag: "one"}, layers: [][]byte{a, b}},
			{ref: Reference{Name: at(dir), Tag: "both"}, layers: [][]byte{a, b}},
			{ref: Reference{Name: at(dir), Tag: "both"}, arch: "arm64", layers: [][]byte{b}},
			{ref: Reference{Name: at(dir), Tag: "both", Digest: both.Digest.String()}, layers: [][]byte{a, b}},
			{ref: Reference{Name: at(dir), Tag: "both", Digest: one.Digest.String()}, layers: [][]byte{a, b}},
			{ref: Reference{Name: at(single)}, layers: [][]byte{a}},
			{ref: Reference{Name: at(many)}, layers: [][]byte{a}},
			{ref: Reference{Name: at(dir), Tag: "both"}, arch: "riscv64", want: "nothing for linux/riscv64, but for: linux/amd64, linux/arm64"},
			{ref: Reference{Name: at(dir), Tag: "other"}, want: `it is for "linux" on "arm64"`},
			{ref: Reference{Name: at(dir), Tag: "two"}, want: "it has 0 images"},
			{ref: Reference{Name: at(dir)}, want: "it has 3 images of which one may be meant; there are the tags: one, other, both"},
			{ref: Reference{Name: at(dir), Tag: "both", Digest: other.Digest.String()}, want: "its manifest is"},
			{ref: Reference{Name: at(dir), Tag: "one", Digest: "sha256:1"}, want: "64 hexadecimal digits"},
			{ref: Reference{Name: dir + "-nothing"}, want: "no such file"},
		} {
			c.ref.Transport = transport
			if c.arch == "" {
				c.arch = "amd64"
			}
			got, err := fetcher(t).Container(t.Context(), c.ref, c.arch, t.TempDir())
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || fault.Of(err) == "" {
					t.Errorf("%s: %v of class %q, want %q", c.ref, err, fault.Of(err), c.want)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", c.ref, err)
				continue
			}
			wantLayers(t, got, c.layers...)
			if got.Labels["a"] != "label" || digest.FromBytes(got.Manifest).String() != got.Digest {
				t.Errorf("%s: %+v", c.ref, got)
			}
			if err := got.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestContainerHostile: whatever an image layout says, it is refused in time, and nothing
// but what is in it is read.
func TestContainerHostile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	write(t, secret, []byte("secret"))
	layer := []byte("layer")
	for name, c := range map[string]struct {
		make func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor))
		want string // of what Container or Get says
	}{
		"no index":     {func(*testing.T, string, putter, func(...ocispec.Descriptor)) {}, "no such file"},
		"index a pipe": {func(t *testing.T, dir string, _ putter, _ func(...ocispec.Descriptor)) { mkfifo(t, dir+"/index.json") }, "is no file"},
		"index huge": {func(t *testing.T, dir string, _ putter, _ func(...ocispec.Descriptor)) {
			write(t, dir+"/index.json", bytes.Repeat([]byte("["), maxManifest+1))
		}, "its index has 4194305 bytes"},
		"index deep": {func(t *testing.T, dir string, _ putter, _ func(...ocispec.Descriptor)) {
			write(t, dir+"/index.json", bytes.Repeat([]byte("["), maxManifest))
		}, "its index is none"},
		"index a link": {func(t *testing.T, dir string, _ putter, _ func(...ocispec.Descriptor)) {
			if err := os.Symlink(secret, dir+"/index.json"); err != nil {
				t.Fatal(err)
			}
		}, "escapes"},
		"blob a link": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			d := put.container(t, "amd64", layer)
			blob := dir + "/blobs/sha256/" + digest.FromBytes(layer).Encoded()
			if err := os.Remove(blob); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(secret, blob); err != nil {
				t.Fatal(err)
			}
			finish(d)
		}, "escapes"},
		"digest a path": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			d := put.container(t, "amd64", layer)
			d.Digest = "sha256:../../../../" + digest.Digest(secret)
			finish(d)
		}, "which is no SHA-256"},
		"index of itself": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			finish(put.index(t, put.index(t, put.index(t, put.container(t, "amd64", layer)))))
		}, "its index is of further indexes"},
		"size negative": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			d := put.container(t, "amd64", layer)
			d.Size = -1
			finish(d)
		}, "should have -1"},
		"size huge": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			d := put.container(t, "amd64", layer)
			d.Size = 1 << 62
			finish(d)
		}, "its manifest has 4611686018427387904 bytes"},
		"manifest changed": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			d := put.container(t, "amd64", layer)
			change(t, dir+"/blobs/sha256/"+d.Digest.Encoded())
			finish(d)
		}, "its manifest is not sha256:"},
		"layer changed": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			d := put.container(t, "amd64", layer)
			change(t, dir+"/blobs/sha256/"+digest.FromBytes(layer).Encoded())
			finish(d)
		}, "and it should be"},
		"layer cut": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			d := put.container(t, "amd64", layer)
			write(t, dir+"/blobs/sha256/"+digest.FromBytes(layer).Encoded(), layer[:2])
			finish(d)
		}, "has 2 bytes, and it should have 5"},
		"layers without end": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			var many [][]byte
			for range maxLayers + 1 {
				many = append(many, layer)
			}
			finish(put.container(t, "amd64", many...))
		}, "it has 501 layers"},
		"layers of another number": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			config := put(ocispec.MediaTypeImageConfig, []byte(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":[]}}`))
			finish(put(ocispec.MediaTypeImageManifest, asJSON(t, ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{put("", layer)}})))
		}, "it has 1 layers, and its configuration knows of 0"},
		"no layers": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			finish(put.container(t, "amd64"))
		}, "it has no layers"},
		"sha512": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			d := put.container(t, "amd64", layer)
			d.Digest = digest.SHA512.FromBytes(layer)
			finish(d)
		}, "which is no SHA-256"},
		"foreign layer": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			config := put(ocispec.MediaTypeImageConfig, asJSON(t, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
				RootFS: ocispec.RootFS{DiffIDs: []digest.Digest{digest.FromBytes(layer)}}}))
			finish(put(ocispec.MediaTypeImageManifest, asJSON(t, ocispec.Manifest{Config: config, Layers: []ocispec.Descriptor{
				put("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", layer)}})))
		}, "is kept elsewhere"},
		"an artifact": {func(t *testing.T, dir string, put putter, finish func(...ocispec.Descriptor)) {
			finish(put(ocispec.MediaTypeImageManifest, asJSON(t, ocispec.Manifest{Config: put("application/vnd.oci.empty.v1+json", []byte("{}")),
				Layers: []ocispec.Descriptor{put("application/octet-stream", layer)}})))
		}, `it is for "" on ""`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "oci")
			put, finish := ociLayout(t, dir)
			c.make(t, dir, put, finish)
			got, err := fetcher(t).Container(t.Context(), Reference{Transport: OCI, Name: dir}, "amd64", t.TempDir())
			if err == nil {
				for _, l := range got.Layers {
					if err == nil {
						err = fetcher(t).Get(t.Context(), l.File, filepath.Join(t.TempDir(), "part"))
					}
				}
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.Of(err) == "" {
				t.Errorf("%v of class %q, want %q", err, fault.Of(err), c.want)
			}
		})
	}
}

func mkfifo(t *testing.T, name string) {
	t.Helper()
	if err := unix.Mkfifo(name, 0o644); err != nil {
		t.Fatal(err)
	}
}

// change changes a byte of a file.
func change(t *testing.T, name string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2]++
	write(t, name, b)
}

// tarOf is a tar of files; a target that begins with > is a symbolic link, with = a hard
// one.
func tarOf(t testing.TB, files ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f[0], Typeflag: tar.TypeReg, Size: int64(len(f[1])), Mode: 0o644}
		if link := strings.TrimLeft(f[1], ">="); link != f[1] {
			h.Typeflag, h.Size, h.Linkname = tar.TypeSymlink, 0, link
			if f[1][0] == '=' {
				h.Typeflag = tar.TypeLink
			}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(f[1])); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestDockerArchive: what docker save writes, of old and of new versions, and what nobody
// should.
func TestDockerArchive(t *testing.T) {
	a, b := "layer a", "layer b"
	config := fmt.Sprintf(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[%q,%q]}}`,
		digest.FromString(a), digest.FromString(b))
	list := `[{"Config":"c.json","RepoTags":["x/os:1"],"Layers":["a/layer.tar","b/layer.tar"]}]`
	plain := [][2]string{{"c.json", config}, {"a/layer.tar", a}, {"b/layer.tar", b}, {"manifest.json", list}}
	with := func(more ...[2]string) [][2]string { return append(more, plain...) }
	for name, c := range map[string]struct {
		files [][2]string
		tag   string
		want  string
	}{
		"plain":       {files: plain},
		"by tag":      {files: plain, tag: "x/os:1"},
		"another tag": {files: plain, tag: "x/os:2", want: "it has 0 images of which one may be meant; there are: x/os:1"},
		"linked": {files: [][2]string{{"c.json", config}, {"k/real.tar", a}, {"a/layer.tar", ">../k/real.tar"},
			{"b/layer.tar", b}, {"manifest.json", list}}},
		"hard link": {files: [][2]string{{"c.json", config}, {"k/real.tar", a}, {"a/layer.tar", "=k/real.tar"},
			{"b/layer.tar", b}, {"manifest.json", list}}},
		"link out": {files: [][2]string{{"c.json", config}, {"a/layer.tar", ">/etc/passwd"}, {"b/layer.tar", b},
			{"manifest.json", list}}, want: "has no file"},
		"link up": {files: [][2]string{{"c.json", config}, {"a/layer.tar", ">../../../etc/passwd"}, {"b/layer.tar",
			b}, {"manifest.json", list}}, want: "has no file"},
		"link to a link": {files: [][2]string{{"c.json", config}, {"a/layer.tar", ">../b/layer.tar"}, {"b/layer.tar",
			">../a/layer.tar"}, {"manifest.json", list}}, want: "has no file"},
		"config elsewhere": {files: [][2]string{{"manifest.json", `[{"Config":"../../etc/passwd","Layers":[]}]`}}, want: "has no file"},
		"other layer": {files: [][2]string{{"c.json", config}, {"a/layer.tar", "layer x"}, {"b/layer.tar", b},
			{"manifest.json", list}}, want: "and it should be"},
		"no manifest": {files: [][2]string{{"c.json", config}}, want: `has no file "manifest.json"`},
		"two":         {files: with([2]string{"manifest.json", "[]"}), want: ""}, // the last counts, as for every reader of tars
		"huge": {files: [][2]string{{"manifest.json", strings.Repeat("[", maxManifest+1)}},
			want: "its manifest.json has 4194305 bytes"},
		"no JSON": {files: [][2]string{{"manifest.json", "{"}}, want: "its manifest.json is none"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "image.tar")
			write(t, file, tarOf(t, c.files...))
			got, err := fetcher(t).Container(t.Context(), Reference{Transport: DockerArchive, Name: file, Tag: c.tag}, "amd64", t.TempDir())
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				wantLayers(t, got, []byte(a), []byte(b))
				return
			}
			for n := 0; err == nil && n < len(got.Layers); n++ {
				err = fetcher(t).Get(t.Context(), got.Layers[n].File, filepath.Join(t.TempDir(), "part"))
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.Of(err) == "" {
				t.Errorf("%v of class %q, want %q", err, fault.Of(err), c.want)
			}
		})
	}
	for name, b := range map[string][]byte{"empty": nil, "gzip": []byte("\x1f\x8b\x08 and so on"), "cut": tarOf(t, plain...)[:700]} {
		file := filepath.Join(t.TempDir(), "image.tar")
		write(t, file, b)
		_, err := fetcher(t).Container(t.Context(), Reference{Transport: DockerArchive, Name: file}, "amd64", t.TempDir())
		if err == nil || fault.Of(err) != fault.Image {
			t.Errorf("%s: %v of class %q", name, err, fault.Of(err))
		}
	}
}

// TestContainerRegistry: an image of a registry, by tag and by digest, of an index; what
// it gives is what skopeo, which had no part in it, has put there.
func TestContainerRegistry(t *testing.T) {
	host := fixtures.Registry(t, "")
	dir := filepath.Join(t.TempDir(), "oci")
	put, finish := ociLayout(t, dir)
	a, b := tarOf(t, [2]string{"a", "a"}), tarOf(t, [2]string{"b", "b"})
	finish(tagged(put.container(t, "amd64", a, b), "one"))
	copied := func(to string) {
		fixtures.Program(t, "", "skopeo", "--insecure-policy", "copy", "--quiet", "--preserve-digests",
			"--dest-tls-verify=false", "oci:"+dir+":one", to)
	}
	copied("docker://" + host + "/os:one")
	ref := Reference{Transport: Docker, Name: host + "/os", Tag: "one"}
	c, err := fetcher(t).Container(t.Context(), ref, "amd64", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	wantLayers(t, c, a, b)
	if raw := fixtures.Program(t, "", "skopeo", "inspect", "--raw", "--tls-verify=false", ref.String()); raw != string(c.Manifest) {
		t.Errorf("manifest:\n%s\nand skopeo has\n%s", c.Manifest, raw)
	}
	for _, c := range []struct {
		ref  Reference
		want string
	}{
		{Reference{Transport: Docker, Name: host + "/os", Digest: c.Digest}, ""},
		{Reference{Transport: Docker, Name: host + "/os", Tag: "one", Digest: c.Digest}, ""},
		{Reference{Transport: Docker, Name: host + "/os", Digest: digest.FromString("x").String()}, "not found"},
		{Reference{Transport: Docker, Name: host + "/os", Tag: "two"}, "not found"},
		{Reference{Transport: Docker, Name: host + "/os"}, "not found"}, // :latest
	} {
		_, err := fetcher(t).Container(t.Context(), c.ref, "amd64", t.TempDir())
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || fault.Of(err) == "") {
			t.Errorf("%s: %v of class %q, want %q", c.ref, err, fault.Of(err), c.want)
		}
	}
}

// TestContainersStorage: an image that buildah has on this machine is the one that it was
// built or pulled as.
func TestContainersStorage(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Tools)
	dir, err := os.MkdirTemp("", "oci")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	put, finish := ociLayout(t, dir)
	a, b := tarOf(t, [2]string{"a", "a"}), tarOf(t, [2]string{"b", "b"})
	finish(tagged(put.container(t, "amd64", a, b), "one"))
	storage := t.TempDir()
	t.Setenv("CONTAINERS_STORAGE_CONF", filepath.Join(storage, "storage.conf"))
	write(t, filepath.Join(storage, "storage.conf"), fmt.Appendf(nil, "[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n",
		storage+"/root", storage+"/run"))
	fixtures.Program(t, "", "skopeo", "--insecure-policy", "copy", "--quiet", "oci:"+dir+":one", "containers-storage:localhost/os:one")
	ref := Reference{Transport: ContainersStorage, Name: "localhost/os", Tag: "one"}
	c, err := fetcher(t).Container(t.Context(), ref, "amd64", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	wantLayers(t, c, a, b)
	ref.Digest = c.Digest
	if _, err := fetcher(t).Container(t.Context(), ref, "amd64", t.TempDir()); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	pinned, err := fetcher(t).Container(t.Context(),
		Reference{Transport: ContainersStorage, Name: "localhost/os", Digest: c.Digest}, "amd64", t.TempDir())
	if err != nil {
		t.Fatalf("by its digest alone: %v", err)
	}
	wantLayers(t, pinned, a, b)
	full := fetcher(t)
	full.Room = func(int64) error { return fault.New(fault.Host, "", "full") }
	scratch := t.TempDir()
	if c, err = full.Container(t.Context(), ref, "amd64", scratch); err != nil {
		t.Fatal(err)
	}
	err = full.Get(t.Context(), c.Layers[0].File, filepath.Join(scratch, "part"))
	if fault.Of(err) != fault.Host || !strings.Contains(err.Error(), "full") {
		t.Errorf("without room: %v of class %q", err, fault.Of(err))
	}
	if _, err := os.Stat(filepath.Join(scratch, "storage")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without room something is written: %v", err)
	}
	for tag, want := range map[string]string{"one": "and it should be", "two": "does not resolve to an image"} {
		_, err := fetcher(t).Container(t.Context(), Reference{ContainersStorage, "localhost/os", tag,
			digest.FromString("x").String()}, "amd64", t.TempDir())
		if err == nil || !strings.Contains(err.Error(), want) || fault.Of(err) == "" {
			t.Errorf("%s: %v, want %q", tag, err, want)
		}
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := fetcher(t).Container(t.Context(), ref, "amd64",
		t.TempDir()); fault.Of(err) != fault.Host || !strings.Contains(err.Error(), "skopeo is not installed") {
		t.Errorf("without skopeo: %v of class %q", err, fault.Of(err))
	}
}

// FuzzArchive: of whatever comes, files are found that lie in it.
func FuzzArchive(f *testing.F) {
	f.Add(tarOf(f, [2]string{"manifest.json", "[]"}, [2]string{"a", ">manifest.json"}, [2]string{"b", "=a"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		name := filepath.Join(t.TempDir(), "a.tar")
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := openArchive(name)
		if err != nil {
			if fault.Of(err) == "" {
				t.Errorf("of no class: %v", err)
			}
			return
		}
		defer a.Close()
		for name, s := range a.files {
			if s.link == "" && (s.at < 0 || s.size < 0) {
				t.Errorf("%q is at %d, of %d bytes", name, s.at, s.size)
			}
		}
	})
}

// FuzzManifest: of whatever a manifest and a configuration say, an image comes that has as
// many layers as both say, each with a sum, or an error that is the image's fault.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"layers":[{"digest":"sha256:`+strings.Repeat("0", 64)+`","size":1}]}`),
		[]byte(`{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`))
	f.Fuzz(func(t *testing.T, b, config []byte) {
		var m manifestJSON
		if json.Unmarshal(b, &m) != nil {
			return
		}
		c, err := newContainer(digest.FromBytes(b), b, m, config, "amd64")
		if err != nil {
			if fault.Of(err) != fault.Image {
				t.Errorf("%v of class %q", err, fault.Of(err))
			}
			return
		}
		if len(c.Layers) == 0 || len(c.Layers) != len(m.Layers) {
			t.Errorf("%d layers", len(c.Layers))
		}
		for _, l := range c.Layers {
			if !isSHA256(digest.Digest(l.Digest)) || !isSHA256(digest.Digest(l.DiffID)) || l.Size < 0 {
				t.Errorf("%+v", l)
			}
		}
	})
}
