package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/tool"
)

// The images of podman and buildah are trees on this machine, and what has made them knows
// how to make layers of them again. The manifest is the one that they came with, or were
// built with, so that an image is the same here and in a registry; the layers are the tars
// that its configuration names, uncompressed.

// stored finds an image in the storage of podman and buildah.
func (f *Fetcher) stored(ctx context.Context, r Reference, scratch, arch string) (*Container, error) {
	of := Reference{Transport: r.Transport, Name: r.Name, Tag: r.Tag}
	if r.Tag == "" { // with a tag, the storage takes that and no digest
		of.Digest = r.Digest
	}
	name := of.String()
	b, err := inspect(ctx, "--raw", name)
	if err != nil {
		return nil, err
	}
	config, err := inspect(ctx, "--raw", "--config", name)
	if err != nil {
		return nil, err
	}
	var m manifestJSON
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fault.New(fault.Image, "", "its manifest is none: %w", err)
	}
	is := digest.FromBytes(b)
	if r.Digest != "" && is.String() != r.Digest {
		return nil, fault.New(fault.Image, "see whether it was made anew, and pin that",
			"its manifest is %s, and it should be %s", is, r.Digest)
	}
	c, err := newContainer(is, b, m, config, arch)
	if err != nil {
		return nil, err
	}
	var size int64 // what of it is compressed is more, which nobody knows before
	for _, l := range c.Layers {
		size += l.Size
	}
	dir := filepath.Join(scratch, "storage")
	var opened place
	copied := sync.OnceValues(func() (place, error) {
		err := f.copyStored(ctx, name, dir, size)
		if err == nil {
			opened, err = openLayout(dir, "image")
		}
		return opened, err
	})
	c.close = func() error {
		if opened == nil {
			return nil
		}
		return opened.Close()
	}
	for n := range c.Layers {
		d := digest.Digest(c.Layers[n].DiffID)
		c.Layers[n].File = File{
			URL: fmt.Sprintf("layer %d of %s", n+1, r), SHA256: d.Encoded(),
			open: func(ctx context.Context, _ int64, _ string) (*answer, error) {
				from, err := copied()
				if err != nil {
					return nil, final{err}
				}
				fi, err := os.Stat(filepath.Join(dir, ocispec.ImageBlobsDir, "sha256", d.Encoded()))
				if err != nil {
					return nil, final{fault.New(fault.Image, "try again: perhaps it was made anew meanwhile", "%w", err)}
				}
				return openBlob(ctx, from, ocispec.Descriptor{Digest: d, Size: fi.Size()}, 0)
			},
		}
	}
	return c, nil
}

// copyStored copies an image of the storage into an OCI image layout, as long as there is
// room. size is how many bytes it has at least.
func (f *Fetcher) copyStored(ctx context.Context, name, dir string, size int64) error {
	if err := f.Room(size); err != nil {
		return err
	}
	const often = 256 << 20 // more than is written between two questions
	ctx, cancel := context.WithCancelCause(ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer cancel(nil)
	asking.Go(func() {
		tick := time.NewTicker(time.Second / 4)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := f.Room(often); err != nil {
					cancel(err)
				}
			}
		}
	})
	// The storage has no signatures to ask for.
	_, err := tool.Run(ctx, tool.Call{Program: "skopeo", What: fromStorage, Args: []string{
		"--insecure-policy", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers", name, "oci:" + dir + ":image",
	}})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return fromSkopeo(err)
}

const fromStorage = "read the container image from the storage of this machine"

// inspect gives what skopeo says of an image.
func inspect(ctx context.Context, args ...string) ([]byte, error) {
	b, err := tool.Run(ctx, tool.Call{Program: "skopeo", What: fromStorage, Args: append([]string{"inspect"}, args...)})
	if err == nil && len(b) == 0 {
		err = fault.New(fault.Image, "", "skopeo says nothing of it")
	}
	return b, fromSkopeo(err)
}

// fromSkopeo says whose fault it is that skopeo fails.
func fromSkopeo(err error) error {
	var exit *tool.ExitError
	switch {
	case !errors.As(err, &exit):
		return err
	case strings.Contains(exit.Report, "does not resolve to an image"), strings.Contains(exit.Report, "image not known"):
		return fault.New(fault.NotFound, "podman images, as root, lists those there are: each user has others", "%w", err)
	}
	return fault.New(fault.Host, "", "%w", err)
}
