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
	repo, err := f.repository(reference)
	if err != nil {
		return File{}, err
	}
	var desc ocispec.Descriptor
	err = f.persist(ctx, func() (bool, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, silence, errors.New("the registry does not answer"))
		defer cancel()
		desc, err = f.blob(ctx, repo, repo.Reference.ReferenceOrDefault(), 0)
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
			return openBlob(ctx, repo, desc, have)
		},
	}, nil
}

func (f *Fetcher) repository(reference string) (*remote.Repository, error) {
	repo, err := remote.NewRepository(reference)
	if err != nil {
		return nil, fault.New(fault.Usage, "write oci:HOST/NAME:TAG, or oci:HOST/NAME@sha256:DIGEST", "%s: %w", reference, err)
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

// blob finds the image in a manifest, or in one that an index names.
func (f *Fetcher) blob(ctx context.Context, repo *remote.Repository, reference string, depth int) (ocispec.Descriptor, error) {
	desc, err := repo.Resolve(ctx, reference)
	if err != nil {
		return desc, err
	}
	if desc.Size > maxManifest {
		return desc, fault.New(fault.Image, "", "its manifest has %d bytes", desc.Size)
	}
	b, err := content.FetchAll(ctx, repo, desc)
	if err != nil {
		return desc, err
	}
	var m struct {
		Manifests []ocispec.Descriptor
		Layers    []ocispec.Descriptor
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return desc, fault.New(fault.Image, "", "its manifest is none: %w", err)
	}
	if len(m.Manifests) == 0 {
		return one(m.Layers, "image", func(d ocispec.Descriptor) bool { return isDisk(d.Annotations[ocispec.AnnotationTitle]) })
	}
	if depth > 0 {
		return desc, fault.New(fault.Image, "", "its index is of further indexes")
	}
	d, err := one(m.Manifests, "manifest for "+runtime.GOARCH, func(d ocispec.Descriptor) bool {
		return d.Platform != nil && d.Platform.Architecture == runtime.GOARCH
	})
	if err != nil {
		return desc, err
	}
	return f.blob(ctx, repo, d.Digest.String(), depth+1)
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

// openBlob opens a blob from byte have on, or from the beginning, if the registry cannot.
func openBlob(ctx context.Context, repo *remote.Repository, desc ocispec.Descriptor, have int64) (*answer, error) {
	body, err := repo.Blobs().Fetch(ctx, desc)
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
