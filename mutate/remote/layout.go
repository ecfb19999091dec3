package remote

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/imgmut/imgmut/mutate/fault"
)

// layout is an OCI image layout: blobs by their digests, and an index of what people call
// them. Nobody says that its author is somebody's friend: a name in it leads nowhere but
// into it, and is of a file.
type layout struct {
	tag  string
	open func(name string) (io.ReadSeekCloser, int64, error) // by a path in it
	io.Closer
}

// dockerName is the annotation in which Docker has the whole name of an image.
const dockerName = "io.containerd.image.name"

func openLayout(dir, tag string) (place, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, notThere(err)
	}
	return &layout{tag: tag, Closer: root, open: func(name string) (io.ReadSeekCloser, int64, error) {
		return opened(openRegular(name, root.OpenFile))
	}}, nil
}

func opened(f *os.File, size int64, err error) (io.ReadSeekCloser, int64, error) {
	if err != nil { // f would be a nil that is none
		return nil, 0, err
	}
	return f, size, nil
}

func openLayoutArchive(file, tag string) (place, error) {
	a, err := openArchive(file)
	if err != nil {
		return nil, err
	}
	return &layout{tag: tag, Closer: a, open: a.open}, nil
}

// Fetch gives a blob.
func (l *layout) Fetch(_ context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	if !isSHA256(d.Digest) {
		return nil, fault.New(fault.Image, "", "%.80q is no SHA-256", string(d.Digest))
	}
	r, size, err := l.open(path.Join(ocispec.ImageBlobsDir, "sha256", d.Digest.Encoded()))
	if err == nil && size != d.Size {
		err = errors.Join(fault.New(fault.Image, "", "%s has %d bytes, and it should have %d", d.Digest, size, d.Size), r.Close())
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// root is what the layout's index has for the tag. Without a tag that is its only image,
// or the index itself, if that is of one image for many machines.
func (l *layout) root(context.Context) (ocispec.Descriptor, error) {
	none := ocispec.Descriptor{}
	r, size, err := l.open(ocispec.ImageIndexFile)
	if err != nil {
		return none, err
	}
	defer r.Close()
	b, err := bounded(r, size, "index")
	if err != nil {
		return none, err
	}
	var index ocispec.Index
	if err := json.Unmarshal(b, &index); err != nil {
		return none, fault.New(fault.Image, "", "its index is none: %w", err)
	}
	var fit []ocispec.Descriptor
	var tags []string
	platforms := len(index.Manifests) > 0
	for _, d := range index.Manifests {
		tag := d.Annotations[ocispec.AnnotationRefName]
		if l.tag == "" || tag == l.tag || d.Annotations[dockerName] == l.tag {
			fit = append(fit, d)
		}
		if tag != "" && len(tags) < 16 {
			tags = append(tags, fmt.Sprintf("%.128s", tag))
		}
		platforms = platforms && tag == "" && d.Platform != nil
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case l.tag == "" && platforms:
		return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageIndex, Digest: digest.FromBytes(b), Size: size, Data: b}, nil
	}
	return none, fault.New(fault.NotFound, "name the one that is meant, as …:TAG",
		"it has %d images of which one may be meant; there are the tags: %s", len(fit), strings.Join(tags, ", "))
}

// bounded reads a JSON file that is no larger than such files are.
func bounded(r io.Reader, size int64, what string) ([]byte, error) {
	if size > maxManifest {
		return nil, fault.New(fault.Image, "", "its %s has %d bytes", what, size)
	}
	return io.ReadAll(io.LimitReader(r, size))
}

// archive is a tar of which it is known where each file is.
type archive struct {
	*os.File
	files map[string]section // by the cleaned name
}

// section is where a file is in an archive, or of which other one it is a link.
type section struct {
	at, size int64
	link     string
}

// maxFiles is how many files an archive of an image may have: three for each layer, once.
const maxFiles = 10000

func openArchive(name string) (*archive, error) {
	f, _, err := openRegular(name, os.OpenFile)
	if err != nil {
		return nil, err
	}
	a := &archive{File: f}
	if a.files, err = listArchive(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return a, nil
}

// listArchive reads the headers of a tar.
func listArchive(f io.ReadSeeker) (map[string]section, error) {
	files := map[string]section{}
	t := tar.NewReader(f)
	for {
		h, err := t.Next()
		if err == io.EOF && len(files) > 0 {
			return files, nil
		}
		if err != nil {
			return nil, fault.New(fault.Image, "if it is compressed, unpack it first", "it is no tar of a container image: %w", err)
		}
		if len(files) == maxFiles {
			return nil, fault.New(fault.Image, "", "it has more than %d files", maxFiles)
		}
		// The reader has read headers, whole blocks of them, and nothing else.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		s := section{at: at, size: h.Size}
		switch h.Typeflag {
		case tar.TypeReg:
		case tar.TypeSymlink: // docker save once wrote a layer that it had before as one
			s.link = path.Join(path.Dir(path.Clean(h.Name)), h.Linkname)
		case tar.TypeLink:
			s.link = path.Clean(h.Linkname)
		default:
			continue
		}
		files[path.Clean(h.Name)] = s
	}
}

// open gives a file of the archive. A link is followed once, to another file of it.
func (a *archive) open(name string) (io.ReadSeekCloser, int64, error) {
	s, ok := a.files[path.Clean(name)]
	if ok && s.link != "" {
		s, ok = a.files[s.link]
	}
	if !ok || s.link != "" {
		return nil, 0, fault.New(fault.Image, "", "it has no file %.200q", name)
	}
	return part{io.NewSectionReader(a.File, s.at, s.size)}, s.size, nil
}

// part is a file of an archive, which stays open.
type part struct{ *io.SectionReader }

func (part) Close() error { return nil }

// dockerArchive is what docker save writes: a list of images in manifest.json, each with
// a configuration and layers that are tars. None has a manifest, so it gets the one that
// it would have if it were pushed uncompressed: that is the same for the same image.
type dockerArchive struct {
	*archive
	blobs map[digest.Digest]string // where they are
	own   []byte                   // the manifest
}

func openDockerArchive(file, tag string) (place, error) {
	a, err := openArchive(file)
	if err != nil {
		return nil, err
	}
	d := &dockerArchive{archive: a, blobs: map[digest.Digest]string{}}
	if _, ok := a.files[ocispec.ImageIndexFile]; ok { // since version 25 it writes both
		return &layout{tag: tag, Closer: a, open: a.open}, nil
	}
	if err := d.read(tag); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return d, nil
}

func (d *dockerArchive) json(name string) ([]byte, error) {
	r, size, err := d.open(name)
	if err != nil {
		return nil, err
	}
	return bounded(r, size, path.Base(name))
}

// read finds the image that has a tag, or the only one, and makes a manifest of it.
func (d *dockerArchive) read(tag string) error {
	b, err := d.json("manifest.json")
	if err != nil {
		return err
	}
	var list []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return fault.New(fault.Image, "", "its manifest.json is none: %w", err)
	}
	var tags []string
	fit := list[:0]
	for _, i := range list {
		is := tag == ""
		for _, t := range i.RepoTags {
			is = is || t == tag
			if len(tags) < 16 {
				tags = append(tags, fmt.Sprintf("%.128s", t))
			}
		}
		if is {
			fit = append(fit, i)
		}
	}
	if len(fit) != 1 {
		return fault.New(fault.NotFound, "name the one that is meant, as docker-archive:FILE:NAME:TAG",
			"it has %d images of which one may be meant; there are: %s", len(fit), strings.Join(tags, ", "))
	}
	config, err := d.json(fit[0].Config)
	if err != nil {
		return err
	}
	var of ocispec.Image
	if err := json.Unmarshal(config, &of); err != nil {
		return fault.New(fault.Image, "", "its configuration is none: %w", err)
	}
	if len(of.RootFS.DiffIDs) != len(fit[0].Layers) || len(fit[0].Layers) > maxLayers {
		return fault.New(fault.Image, "", "it has %d layers, and its configuration knows of %d",
			len(fit[0].Layers), len(of.RootFS.DiffIDs))
	}
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	m.Config = d.blob(ocispec.MediaTypeImageConfig, digest.FromBytes(config), fit[0].Config)
	for n, name := range fit[0].Layers {
		m.Layers = append(m.Layers, d.blob(ocispec.MediaTypeImageLayer, of.RootFS.DiffIDs[n], name))
	}
	d.own, err = json.Marshal(m)
	return err
}

// blob describes a file of the archive, which has to prove to be what it is taken for.
func (d *dockerArchive) blob(mediaType string, name digest.Digest, file string) ocispec.Descriptor {
	d.blobs[name] = file
	s := d.files[path.Clean(file)]
	if s.link != "" {
		s = d.files[s.link]
	}
	return ocispec.Descriptor{MediaType: mediaType, Digest: name, Size: s.size}
}

func (d *dockerArchive) root(context.Context) (ocispec.Descriptor, error) {
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: digest.FromBytes(d.own), Size: int64(len(d.own))}, nil
}

// Fetch gives the manifest, or a file.
func (d *dockerArchive) Fetch(_ context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	if desc.Digest == digest.FromBytes(d.own) {
		return io.NopCloser(bytes.NewReader(d.own)), nil
	}
	r, _, err := d.open(d.blobs[desc.Digest])
	if err != nil {
		return nil, err
	}
	return r, nil
}
