package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/imgmut/imgmut/mutate/fault"
)

// maxManifest is how long a manifest may be, in bytes.
const maxManifest = 4 << 20

// Artifact gives the disk image that an artifact of a registry holds: HOST/NAME, with
// :TAG or @DIGEST. It is the one blob of its manifest; of an index, that for this machine's
// architecture. Credentials are those of docker and podman login for the host.
func (f *Fetcher) Artifact(ctx context.Context, reference string) (File, error) {
	repo, err := f.repository(reference, "write oci:HOST/NAME:TAG, or oci:HOST/NAME@sha256:DIGEST")
	if err != nil {
		return File{}, err
	}
	var desc ocispec.Descriptor
	err = f.persist(ctx, func() (bool, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, silence, errors.New("the registry does not answer"))
		defer cancel()
		desc, err = blob(ctx, registryPlace{repo})
		return false, fromRegistry(said(ctx, err))
	})
	if err != nil {
		return File{}, fmt.Errorf("%s: %w", reference, err)
	}
	if desc.Digest.Algorithm() != digest.SHA256 {
		return File{}, fault.New(fault.Image, "", "%s: its blob is named by %s, which imgmut does not know", reference, desc.Digest.Algorithm())
	}
	return File{
		URL: "oci:" + reference, SHA256: desc.Digest.Encoded(),
		open: func(ctx context.Context, have int64, mark string) (*answer, error) {
			if mark != desc.Digest.String() {
				have = 0
			}
			return openBlob(ctx, repo.Blobs(), desc, have)
		},
	}, nil
}

// repository is one of a registry; form says how its name is written.
func (f *Fetcher) repository(reference, form string) (*remote.Repository, error) {
	repo, err := remote.NewRepository(reference)
	if err != nil {
		return nil, fault.New(fault.Usage, form, "%s: %w", reference, err)
	}
	store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{})
	if err != nil {
		return nil, fault.New(fault.Host, "log in again with docker login or podman login", "read credentials: %w", err)
	}
	repo.PlainHTTP = isLocal(repo.Reference.Host())
	repo.Client = &auth.Client{Client: f.client(), Cache: auth.NewCache(), Credential: credentials.Credential(store)}
	return repo, nil
}

// isLocal says whether a registry is on this machine, where nobody is on the way.
func isLocal(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// registryPlace is a repository as a place of container images.
type registryPlace struct{ *remote.Repository }

func (r registryPlace) root(ctx context.Context) (ocispec.Descriptor, error) {
	return r.Resolve(ctx, r.Reference.ReferenceOrDefault())
}

func (registryPlace) Close() error { return nil }

// blob finds the disk in a manifest, or in one that an index names.
func blob(ctx context.Context, from place) (ocispec.Descriptor, error) {
	root, err := from.root(ctx)
	if err != nil {
		return root, err
	}
	_, _, m, err := manifest(ctx, from, root, func(list []ocispec.Descriptor) (ocispec.Descriptor, error) {
		return one(list, "manifest for "+runtime.GOARCH, func(d ocispec.Descriptor) bool {
			return d.Platform != nil && d.Platform.Architecture == runtime.GOARCH
		})
	})
	if err != nil {
		return root, err
	}
	return one(m.Layers, "image", func(d ocispec.Descriptor) bool { return isDisk(d.Annotations[ocispec.AnnotationTitle]) })
}

// manifestJSON is a manifest, or an index of some.
type manifestJSON struct {
	Config    ocispec.Descriptor
	Layers    []ocispec.Descriptor
	Manifests []ocispec.Descriptor
}

// manifest gives a manifest and its bytes: the one that root describes, or, if that is an
// index, the one that is chosen of it.
func manifest(
	ctx context.Context, from content.Fetcher, root ocispec.Descriptor,
	choose func([]ocispec.Descriptor) (ocispec.Descriptor, error),
) (d ocispec.Descriptor, b []byte, m manifestJSON, err error) {
	d = root
	for depth := 0; ; depth++ {
		if b, err = small(ctx, from, d, "manifest"); err != nil {
			return d, nil, m, err
		}
		m = manifestJSON{}
		if err := json.Unmarshal(b, &m); err != nil {
			return d, nil, m, fault.New(fault.Image, "", "its manifest is none: %w", err)
		}
		if len(m.Manifests) == 0 {
			return d, b, m, nil
		}
		if depth > 0 {
			return d, nil, m, fault.New(fault.Image, "", "its index is of further indexes")
		}
		if d, err = choose(m.Manifests); err != nil {
			return d, nil, m, err
		}
	}
}

// small reads a blob that is to be in memory, and has the sum that it must have.
func small(ctx context.Context, from content.Fetcher, d ocispec.Descriptor, what string) ([]byte, error) {
	if d.Size > maxManifest {
		return nil, fault.New(fault.Image, "", "its %s has %d bytes", what, d.Size)
	}
	if !isSHA256(d.Digest) {
		return nil, fault.New(fault.Image, "", "its %s is named by %.80q, which is no SHA-256", what, string(d.Digest))
	}
	if d.Data != nil && digest.FromBytes(d.Data) == d.Digest {
		return d.Data, nil
	}
	b, err := content.FetchAll(ctx, from, d)
	if errors.Is(err, content.ErrMismatchedDigest) || errors.Is(err, content.ErrTrailingData) ||
		errors.Is(err, content.ErrInvalidDescriptorSize) {
		err = fault.New(fault.Image, "", "its %s is not %s: %w", what, d.Digest, err)
	}
	return b, err
}

// isDisk says whether a blob has the name of a disk image.
func isDisk(title string) bool {
	for _, ext := range []string{".raw", ".img", ".qcow2", ".vmdk", ".vhd", ".vhdx", ".vdi"} {
		if strings.Contains(path.Base(title), ext) {
			return true
		}
	}
	return false
}

// one gives the only one of a list, or the only one that is it.
func one(list []ocispec.Descriptor, what string, is func(ocispec.Descriptor) bool) (ocispec.Descriptor, error) {
	if len(list) == 1 && (list[0].Platform == nil || is(list[0])) {
		return list[0], nil
	}
	const told = 8
	var names []string
	for _, d := range list[:min(told, len(list))] {
		title := d.Annotations[ocispec.AnnotationTitle]
		names = append(names, strings.TrimSpace(title[:min(80, len(title))]+" "+d.Digest.String()))
	}
	if len(list) > told {
		names = append(names, "…")
	}
	fit := slices.DeleteFunc(slices.Clone(list), func(d ocispec.Descriptor) bool { return !is(d) })
	if len(fit) == 1 {
		return fit[0], nil
	}
	return ocispec.Descriptor{}, fault.New(fault.Image, "name it by its digest: oci:HOST/NAME@sha256:…",
		"it has %d of which one may be the %s: %s", len(list), what, strings.Join(names, ", "))
}

// openBlob opens a blob from byte have on, or from the beginning, if the place cannot.
func openBlob(ctx context.Context, from content.Fetcher, desc ocispec.Descriptor, have int64) (*answer, error) {
	body, err := from.Fetch(ctx, desc)
	if err != nil {
		return nil, fromRegistry(err)
	}
	a := &answer{body: body, total: desc.Size, mark: desc.Digest.String()}
	if s, ok := body.(io.Seeker); ok && have > 0 {
		if a.at, err = s.Seek(have, io.SeekStart); err != nil {
			return nil, errors.Join(err, body.Close())
		}
	}
	return a, nil
}

// fromRegistry says whose fault an error of a registry is. What is wrong with a manifest
// stays wrong.
func fromRegistry(err error) error {
	var answer *errcode.ErrorResponse
	switch {
	case err == nil:
		return nil
	case fault.Of(err) != "":
		return final{err}
	case errors.Is(err, errdef.ErrNotFound):
		return final{fault.New(fault.NotFound, "see whether the name and the tag are right", "%w", err)}
	case errors.Is(err, auth.ErrBasicCredentialNotFound),
		errors.As(err, &answer) && (answer.StatusCode == 401 || answer.StatusCode == 403):
		return final{fault.New(fault.Host, "docker login or podman login gives the credentials", "%w", err)}
	}
	return unreachable(err)
}
