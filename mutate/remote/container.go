package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"

	"github.com/imgmut/imgmut/mutate/fault"
)

// The places that container images come from, by the names that podman, skopeo and bootc
// give them (containers-transports(5)).
const (
	Docker            = "docker"             // a registry
	OCI               = "oci"                // a directory, an OCI image layout
	OCIArchive        = "oci-archive"        // a tar of one
	DockerArchive     = "docker-archive"     // what docker save writes
	ContainersStorage = "containers-storage" // what podman and buildah have on this machine
)

// Reference names a container image.
type Reference struct {
	Transport string // where it is: one of the above
	Name      string // HOST/NAME of a registry or the storage, or a path
	Tag       string // or empty
	Digest    string // sha256:…, or empty: what its manifest, or the index that has that, must be
}

// String is the reference as podman and skopeo write it.
func (r Reference) String() string {
	s := r.Transport + ":" + r.Name
	if r.Transport == Docker {
		s = r.Transport + "://" + r.Name
	}
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// Container is a container image of which the manifest is known, and each layer is a
// [File]. Close it.
type Container struct {
	Digest   string // of Manifest, as sha256:…
	Manifest []byte // JSON, of an OCI image or of version 2, schema 2 of Docker's
	Config   []byte // JSON
	Labels   map[string]string
	Created  time.Time // zero if it does not say
	Layers   []ContainerLayer
	close    func() error
}

// ContainerLayer is a layer of a container image, the lowest first.
type ContainerLayer struct {
	File          // what comes of it, compressed or not, for [Fetcher.Get]
	Digest string // by which the manifest has it, as sha256:…
	DiffID string // of the tar that it is when it is unpacked, as sha256:…
	Size   int64  // of the file in bytes; 0 if nobody knows
}

// Close lets go of the image. The layers cannot be fetched then.
func (c *Container) Close() error {
	if c.close == nil {
		return nil
	}
	return c.close()
}

// maxLayers is how many layers a container image may have. Docker stops at 127, and
// images of ostree that are cut in chunks have some 70.
const maxLayers = 500

// place is where the blobs of a container image are. Its Fetch need not check anything.
type place interface {
	content.Fetcher
	// root describes the manifest of an image, or an index of manifests.
	root(ctx context.Context) (ocispec.Descriptor, error)
	io.Closer
}

// Container finds a container image, for an architecture as Go names it. Of its layers
// nothing is read yet. scratch is a directory for what has to be written meanwhile, which
// is the caller's to remove.
func (f *Fetcher) Container(ctx context.Context, r Reference, arch, scratch string) (_ *Container, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s: %w", r, err)
		}
	}()
	if r.Digest != "" && !isSHA256(digest.Digest(r.Digest)) {
		return nil, fault.New(fault.Usage, "", "its digest must be sha256: and 64 hexadecimal digits")
	}
	if r.Transport == ContainersStorage {
		return f.stored(ctx, r, scratch, arch)
	}
	from, err := f.place(r)
	if err != nil {
		return nil, err
	}
	c, err := f.found(ctx, from, r, arch)
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	for n := range c.Layers {
		c.Layers[n].URL = fmt.Sprintf("layer %d of %s", n+1, r)
	}
	c.close = from.Close
	return c, nil
}

// found gives the image that is at a place, if need be after some tries.
func (f *Fetcher) found(ctx context.Context, from place, r Reference, arch string) (c *Container, err error) {
	if r.Transport != Docker {
		return container(ctx, from, r.Digest, arch)
	}
	err = f.persist(ctx, func() (bool, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, silence, errors.New("the registry does not answer"))
		defer cancel()
		c, err = container(ctx, from, r.Digest, arch)
		return false, fromRegistry(said(ctx, err))
	})
	return c, err
}

func (f *Fetcher) place(r Reference) (place, error) {
	switch r.Transport {
	case Docker:
		name := r.Name
		switch {
		case r.Digest != "":
			name += "@" + r.Digest
		case r.Tag != "":
			name += ":" + r.Tag
		}
		repo, err := f.repository(name, "write docker://HOST/NAME:TAG, or docker://HOST/NAME@sha256:DIGEST")
		return registryPlace{repo}, err
	case OCI:
		return openLayout(r.Name, r.Tag)
	case OCIArchive:
		return openLayoutArchive(r.Name, r.Tag)
	case DockerArchive:
		return openDockerArchive(r.Name, r.Tag)
	}
	return nil, fault.New(fault.Usage, "", "there are no container images at %q", r.Transport)
}

// container reads the manifest of an image, and its configuration.
func container(ctx context.Context, from place, want, arch string) (*Container, error) {
	root, err := from.root(ctx)
	if err != nil {
		return nil, err
	}
	desc, b, m, err := manifest(ctx, from, root, func(list []ocispec.Descriptor) (ocispec.Descriptor, error) {
		return forMachine(list, arch)
	})
	if err != nil {
		return nil, err
	}
	if d := digest.Digest(want); want != "" && d != root.Digest && d != desc.Digest {
		return nil, fault.New(fault.Image, "see whether it was made anew, and pin that",
			"its manifest is %s, and it should be %s", desc.Digest, want)
	}
	config, err := small(ctx, from, m.Config, "configuration")
	if err != nil {
		return nil, err
	}
	c, err := newContainer(desc.Digest, b, m, config, arch)
	if err != nil {
		return nil, err
	}
	for n, d := range m.Layers {
		c.Layers[n].File = File{
			SHA256: d.Digest.Encoded(),
			open: func(ctx context.Context, have int64, mark string) (*answer, error) {
				if mark != d.Digest.String() {
					have = 0
				}
				return openBlob(ctx, from, d, have)
			},
		}
	}
	return c, nil
}

// newContainer is what the manifest and the configuration of an image say together.
func newContainer(name digest.Digest, b []byte, m manifestJSON, config []byte, arch string) (*Container, error) {
	var of ocispec.Image
	if err := json.Unmarshal(config, &of); err != nil {
		return nil, fault.New(fault.Image, "", "its configuration is none: %w", err)
	}
	diffs := of.RootFS.DiffIDs
	switch {
	case of.OS != "linux" || of.Architecture != arch:
		return nil, fault.New(fault.Image, "", "it is for %q on %q, and the disk is for linux on %s", of.OS, of.Architecture, arch)
	case len(m.Layers) == 0:
		return nil, fault.New(fault.Image, "", "it has no layers")
	case len(m.Layers) > maxLayers:
		return nil, fault.New(fault.Image, "", "it has %d layers, and none needs more than %d", len(m.Layers), maxLayers)
	case len(diffs) != len(m.Layers):
		return nil, fault.New(fault.Image, "", "it has %d layers, and its configuration knows of %d", len(m.Layers), len(diffs))
	}
	c := &Container{Digest: name.String(), Manifest: b, Config: config, Labels: of.Config.Labels}
	if of.Created != nil {
		c.Created = *of.Created
	}
	for n, d := range m.Layers {
		switch {
		case !isSHA256(d.Digest) || !isSHA256(diffs[n]):
			return nil, fault.New(fault.Image, "", "its layer %d has no SHA-256 for its name", n+1)
		case d.Size < 0:
			return nil, fault.New(fault.Image, "", "its layer %d has %d bytes", n+1, d.Size)
		case strings.Contains(d.MediaType, "foreign") || strings.Contains(d.MediaType, "nondistributable"):
			return nil, fault.New(fault.Image, "", "its layer %d is kept elsewhere (%s)", n+1, d.MediaType)
		case strings.Contains(d.MediaType, "+encrypted"):
			return nil, fault.New(fault.Image, "decrypt it with skopeo", "its layer %d is encrypted", n+1)
		}
		c.Layers = append(c.Layers, ContainerLayer{Digest: d.Digest.String(), DiffID: diffs[n].String(), Size: d.Size})
	}
	return c, nil
}

func isSHA256(d digest.Digest) bool { return d.Validate() == nil && d.Algorithm() == digest.SHA256 }

// forMachine gives that one of an index that is for an architecture. What has no platform,
// or one that is unknown, is no image, but something said of one.
func forMachine(list []ocispec.Descriptor, arch string) (ocispec.Descriptor, error) {
	var others []string
	for _, d := range list {
		switch p := d.Platform; {
		case p == nil && len(list) == 1:
			return d, nil
		case p == nil || p.OS == "unknown":
		case p.OS == "linux" && p.Architecture == arch:
			return d, nil
		default:
			others = append(others, p.OS+"/"+p.Architecture)
		}
	}
	slices.Sort(others)
	others = slices.Compact(others)
	const told = 16
	if len(others) > told {
		others = append(others[:told], "…")
	}
	return ocispec.Descriptor{}, fault.New(fault.Image, "", "it has nothing for linux/%s, but for: %.500s",
		arch, strings.Join(others, ", "))
}

// openRegular opens a file for reading that is one.
func openRegular(name string, open func(string, int, os.FileMode) (*os.File, error)) (*os.File, int64, error) {
	const flags = os.O_RDONLY | syscall.O_NONBLOCK // nobody may write to a pipe
	f, err := open(name, flags, 0)
	if err != nil {
		return nil, 0, notThere(err)
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fault.New(fault.Image, "", "%s is no file", filepath.Base(name))
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, fi.Size(), nil
}

// notThere is the error of a file that could not be opened.
func notThere(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fault.New(fault.NotFound, "", "%w", err)
	}
	return fault.New(fault.Image, "", "%w", err)
}
