package remote

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	oras "oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
)

// pushed is a repository with what a test puts there.
type pushed struct {
	*testing.T
	repo *oras.Repository
}

func (p pushed) push(mediaType string, b []byte) ocispec.Descriptor {
	p.Helper()
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if err := p.repo.Push(p.Context(), d, bytes.NewReader(b)); err != nil && !strings.Contains(err.Error(), "already exists") {
		p.Fatal(err)
	}
	return d
}

// manifest pushes one of blobs, each with its title.
func (p pushed) manifest(tag string, blobs map[string][]byte) ocispec.Descriptor {
	p.Helper()
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		ArtifactType: "application/x-disk", Config: p.push("application/vnd.oci.empty.v1+json", []byte("{}"))}
	for title, b := range blobs {
		d := p.push("application/octet-stream", b)
		d.Annotations = map[string]string{ocispec.AnnotationTitle: title}
		m.Layers = append(m.Layers, d)
	}
	return p.put(tag, ocispec.MediaTypeImageManifest, m)
}

func (p pushed) index(tag string, list ...ocispec.Descriptor) {
	p.Helper()
	p.put(tag, ocispec.MediaTypeImageIndex, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageIndex, Manifests: list})
}

func (p pushed) put(tag, mediaType string, m any) ocispec.Descriptor {
	p.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		p.Fatal(err)
	}
	d := p.push(mediaType, b)
	if err := p.repo.Tag(p.Context(), d, tag); err != nil {
		p.Fatal(err)
	}
	return d
}

func repository(t *testing.T, name string) pushed {
	t.Helper()
	repo, err := oras.NewRepository(name)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	return pushed{t, repo}
}

// TestArtifact: an artifact is the one disk image in it, for this machine.
func TestArtifact(t *testing.T) {
	host := fixtures.Registry(t, "")
	p := repository(t, host+"/disks/debian")
	disk, other := noise(1, 3<<20), noise(2, 1<<20)
	here := p.manifest("one", map[string][]byte{"": disk})
	p.manifest("named", map[string][]byte{"debian.qcow2": disk, "README.md": other})
	p.manifest("many", map[string][]byte{"a.raw": disk, "b.raw.zst": other})
	p.manifest("none", nil)
	there := p.manifest("there", map[string][]byte{"": other})
	here.Platform = &ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	there.Platform = &ocispec.Platform{OS: "linux", Architecture: "s390x"}
	p.index("index", there, here)
	p.index("elsewhere", there, there)
	for reference, want := range map[string]string{
		":one": "", "@" + here.Digest.String(): "", ":named": "", ":index": "",
		":many":                               "it has 2 of which one may be the image",
		":none":                               "it has 0 of which one may be the image",
		":elsewhere":                          "it has 2 of which one may be the manifest for " + runtime.GOARCH,
		":nothing":                            "not found",
		"":                                    "not found", // :latest
		"@" + digest.FromString("x").String(): "not found",
		"@sha256:x":                           "invalid",
	} {
		f, err := fetcher(t).Artifact(t.Context(), host+"/disks/debian"+reference)
		if want != "" {
			if err == nil || !strings.Contains(err.Error(), want) || fault.Of(err) == "" {
				t.Errorf("%s: %v of class %q, want %q", reference, err, fault.Of(err), want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", reference, err)
			continue
		}
		part := filepath.Join(t.TempDir(), "part")
		// Half of it is there already, of this digest.
		write(t, part, disk[:len(disk)/2])
		write(t, part+".mark", []byte(digest.FromBytes(disk).String()))
		first := int64(0)
		get := fetcher(t)
		get.Progress = func(done, _ int64) {
			if first == 0 {
				first = done
			}
		}
		if err := get.Get(t.Context(), f, part); err != nil {
			t.Errorf("%s: %v", reference, err)
		}
		if b, err := os.ReadFile(part); err != nil || !bytes.Equal(b, disk) || first <= int64(len(disk)/2) {
			t.Errorf("%s: %d bytes, %v, the first at %d", reference, len(b), err, first)
		}
	}
}

// TestCredentials are those that docker login has written down.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	// htpasswd -Bbn user secret
	write(t, filepath.Join(dir, "htpasswd"), []byte("user:$2y$05$2gv94FyvBVwgz0N4FNdSK.JCC6bQ2JCdVcFNfZvbyaiQz4b2A6XXS\n"))
	host := fixtures.Registry(t, "auth: {htpasswd: {realm: t, path: "+dir+"/htpasswd}}\n")
	t.Setenv("DOCKER_CONFIG", dir)
	if _, err := fetcher(t).Artifact(t.Context(), host+"/a:one"); fault.Of(err) != fault.Host ||
		!strings.Contains(fault.Mend(err), "docker login") {
		t.Errorf("without credentials: %v (%s)", err, fault.Mend(err))
	}
	write(t, filepath.Join(dir, "config.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":"dXNlcjpzZWNyZXQ="}}}`, host))
	p := repository(t, host+"/a")
	p.repo.Client = &auth.Client{Credential: auth.StaticCredential(host, auth.Credential{Username: "user", Password: "secret"})}
	p.manifest("one", map[string][]byte{"": []byte("disk")})
	f, err := fetcher(t).Artifact(t.Context(), host+"/a:one")
	if err == nil {
		err = fetcher(t).Get(t.Context(), f, filepath.Join(dir, "part"))
	}
	if err != nil {
		t.Error(err)
	}
}
