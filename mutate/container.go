package mutate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/bootc"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/ostree"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/remote"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/recipes"
)

// A recipe may say that the system of the disk becomes a container image (bootc:). That
// is no step: it is done to the fork from outside, once that is as large as it is to be,
// and is a layer of its own, on which all steps stand. Its key has the digest of the
// image's manifest: so the image is asked for before anything is planned, and a tag that
// has moved is another layer.

// container is the image that a recipe asks for.
type container struct {
	digest string            // of its manifest
	origin string            // what bootc is to update the system from, "" if nothing
	image  *bootc.Image      // nil if it is not in the repository yet
	from   *remote.Container // nil if nobody had to be asked
	run    *store.Workspace  // in which from has its files; nil with it
	name   string            // by which the repository knows it, "" if it need not
}

// close lets go of where it comes from.
func (c *container) close() error {
	if c == nil || c.run == nil {
		return nil
	}
	var err error
	if c.from != nil {
		err = c.from.Close()
	}
	return errors.Join(err, c.run.Close())
}

// becomes is what decides what is in the layer that is made of a container image.
type becomes struct {
	Image  string `json:"image"` // digest of its manifest
	Origin string `json:"origin,omitempty"`
	Keep   int    `json:"keep,omitempty"`
}

// containers is the repository of container images in the store.
func (e *Engine) containers(ctx context.Context) *bootc.Repository {
	return &bootc.Repository{Dir: e.Store.Containers(), Room: e.room(ctx), Phase: e.phase, Progress: e.progress("import")}
}

// checkBootc refuses a container image for a disk whose system is of another kind, or of
// which no new deployment can be made.
func checkBootc(r *recipes.Recipe, l *disk.Layout) error {
	switch {
	case r.Bootc.Image.Transport == "":
	case l.Deployed() == "":
		return recipes.Problems{r.BootcProblem("image", "give such a disk what a Containerfile has by steps: RUN is a run step, COPY a copy step",
			"the base is no deployment of ostree, and no other system can become a container image")}
	case len(l.Deployments) > 0: // of a base that an older imgmut has imported it is found later
		return l.Deployments[0].Committable()
	}
	return nil
}

// container finds the container image that a recipe asks for, nil if it asks for none. It
// asks for it anew each time, unless the recipe says that it need not.
func (e *Engine) container(ctx context.Context, r *recipes.Recipe, base *record.Base, o ApplyOptions) (*container, error) {
	asked := r.Bootc.Image
	if asked.Transport == "" {
		return nil, nil
	}
	if err := checkBootc(r, &base.Layout); err != nil {
		return nil, err
	}
	ref := remote.Reference(asked)
	c := &container{origin: originOf(r.Bootc)}
	arch := containerArch(base.Layout.Arch)
	if !asked.Moves() || r.Bootc.MaxAge > 0 {
		c.name = ref.String() + " for " + arch
		image, when, err := e.containers(ctx).Known(c.name)
		if err != nil {
			return nil, err
		}
		fresh := !asked.Moves() || e.Now().Sub(when) <= r.Bootc.MaxAge.Duration()
		if image != nil && fresh && !o.NoCache && !slices.Contains(o.Refresh, record.ContainerKind) {
			c.image, c.digest = image, image.Digest
			return c, nil
		}
	}
	err := e.ask(ctx, c, ref, arch)
	if err == nil {
		c.digest = c.from.Digest
		err = e.find(ctx, c)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", r.BootcPlace(), err), c.close())
	}
	return c, nil
}

// ask finds the image where it is.
func (e *Engine) ask(ctx context.Context, c *container, ref remote.Reference, arch string) (err error) {
	if c.run, err = e.Store.Begin(ctx); err != nil {
		return err
	}
	f := remote.Fetcher{Proxy: e.Proxy, Room: e.room(ctx), Progress: e.progress("fetch"), Note: e.note}
	c.from, err = f.Container(ctx, ref, arch, c.run.Path("."))
	return err
}

// find looks whether the repository has the image, and writes down what it is to be known
// by.
func (e *Engine) find(ctx context.Context, c *container) (err error) {
	if c.image, err = e.containers(ctx).Find(c.digest); err != nil || c.image == nil || c.name == "" {
		return err
	}
	unlock, err := e.Store.Lock(ctx, "containers")
	if err != nil {
		return err
	}
	defer unlock()
	// Others may have written to the record meanwhile.
	if c.image, err = e.containers(ctx).Find(c.digest); err != nil || c.image == nil {
		return err
	}
	return e.containers(ctx).SetFound(c.image, c.name, e.Now().UTC())
}

// containerArch is an architecture as container images name it.
func containerArch(systemd string) string {
	switch systemd {
	case "":
		return runtime.GOARCH
	case "x86-64":
		return "amd64"
	case "x86":
		return "386"
	}
	return systemd
}

// originOf is what a system is updated from: what the recipe says, or where the image is,
// if that is a registry. podman's storage names images by theirs, but localhost is none.
func originOf(b recipes.Bootc) string {
	i := b.Image
	host, _, _ := strings.Cut(i.Name, "/")
	switch {
	case b.Target != "":
		return b.Target
	case i.Transport == remote.ContainersStorage && (!strings.Contains(host, ".") || strings.Contains(host, "[")),
		i.Transport != remote.Docker && i.Transport != remote.ContainersStorage:
		return ""
	case i.Tag != "":
		return i.Name + ":" + i.Tag
	case i.Digest != "":
		return i.Name + "@" + i.Digest
	}
	return i.Name + ":latest"
}

// material is what the layer of a container image is made of.
func (c *container) material(parent record.Key, keep int) (m record.Material, err error) {
	m = record.Material{Parent: parent, Kind: record.ContainerKind, Version: bootc.Version}
	m.Options, err = json.Marshal(becomes{Image: c.digest, Origin: c.origin, Keep: keep})
	return m, err
}

// becomeContainer makes the layer of the container image in a fork.
func (b *build) becomeContainer(ctx context.Context, work string) error {
	l := b.plan.bootc
	unlock, err := b.Store.Lock(ctx, "layer-"+string(l.key))
	if err != nil {
		return err
	}
	defer unlock()
	rec, ok, err := b.Catalog().FindLayer(l.key)
	if err != nil {
		return err
	}
	if ok && !l.anew { // another imgmut has made it meanwhile
		l.record, l.ready = rec, true
		if err := os.Remove(work); err != nil {
			return err
		}
		return reflink.CloneFile(work, b.Catalog().LayerFile(l.key), 0o600)
	}
	started := time.Now()
	image, err := b.importContainer(ctx, l.container)
	if err != nil {
		return fmt.Errorf("%s: %w", b.plan.recipe.BootcPlace(), err)
	}
	for _, text := range image.Notes() {
		b.note("container image: " + text)
	}
	if l.container.origin == "" && !image.Encapsulated {
		b.note("container image: nothing says where the system's updates come from, so bootc upgrade does nothing: " +
			"bootc: {target: HOST/NAME:TAG}")
	}
	b.phase("deploy the container image")
	mounts, err := b.deployContainer(ctx, work, image)
	if err != nil {
		return fmt.Errorf("%s: %w", b.plan.recipe.BootcPlace(), err)
	}
	made := b.run.Path("bootc.raw")
	if err := reflink.CloneFile(made, work, 0o600); err != nil {
		return err
	}
	// As with prepare, what is made is always the same.
	l.record = record.Layer{Material: l.material, Made: b.plan.base.Imported, ParentMade: b.plan.base.Imported,
		Settled: true, Mounts: mounts, Took: time.Since(started)}
	l.ready = true
	b.made[l.key] = l.record.Made
	return b.Catalog().CommitLayer(ctx, made, l.key, l.record)
}

// deployContainer makes an image the system of a fork, and gives what that mounts.
func (b *build) deployContainer(ctx context.Context, work string, image *bootc.Image) (mounts []disk.Mounted, err error) {
	f, err := os.OpenFile(work, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close(), mount.WaitReleased(context.WithoutCancel(ctx), work)) }()
	i, err := disk.OpenKnown(ctx, f, b.plan.layout, b.note)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.Close()) }()
	if err := i.Replay(i.Volumes()); err != nil {
		return nil, fmt.Errorf("replay journals: %w", err)
	}
	if err := i.FindRoles(); err != nil {
		return nil, err
	}
	if len(i.Layout.Deployments) == 0 {
		return nil, fault.New(fault.Image, "", "the base has no deployment of ostree")
	}
	repository := b.containers(ctx)
	dir, err := repository.Directory()
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, d := range dir {
			d.Close()
		}
	}()
	to := bootc.Deploy{OS: i.Layout.Deployments[0].OS, Origin: b.plan.bootc.container.origin, Keep: b.plan.recipe.Bootc.Keep}
	err = i.ChangeSysroot(dir, func(s *ostree.Sysroot) error { return repository.Deploy(ctx, s, image, to) })
	if err != nil {
		return nil, err
	}
	if err := i.FindRoles(); err != nil {
		return nil, fmt.Errorf("the container image makes a system that cannot be: %w", err)
	}
	return i.Layout.Mounts, nil
}

// importContainer gives the image as the repository has it.
func (b *build) importContainer(ctx context.Context, c *container) (image *bootc.Image, err error) {
	unlock, err := b.Store.Lock(ctx, "containers")
	if err != nil {
		return nil, err
	}
	defer unlock()
	if image, err = b.containers(ctx).Find(c.digest); image != nil || err != nil {
		return image, err
	}
	if c.from == nil {
		return nil, fault.New(fault.Host, "run it again", "the container image %s was removed meanwhile", c.digest)
	}
	b.phase("import the container image " + c.digest)
	from := bootc.Source{
		Digest: c.digest, Manifest: c.from.Manifest, Config: c.from.Config, Labels: c.from.Labels, Created: c.from.Created,
		Open: func(ctx context.Context, n int) (io.ReadCloser, error) { return b.fetchLayer(ctx, c.from.Layers[n]) },
	}
	for _, l := range c.from.Layers {
		from.Layers = append(from.Layers, bootc.SourceLayer{Digest: l.Digest, DiffID: l.DiffID, Size: l.Size})
	}
	if image, err = b.containers(ctx).Import(ctx, from); err != nil || c.name == "" {
		return image, err
	}
	return image, b.containers(ctx).SetFound(image, c.name, b.Now().UTC())
}

// fetchLayer fetches a layer, which goes when it is closed.
func (b *build) fetchLayer(ctx context.Context, l remote.ContainerLayer) (io.ReadCloser, error) {
	f := remote.Fetcher{Proxy: b.Proxy, Room: b.room(ctx), Progress: b.progress("fetch"), Note: b.note}
	unlock, err := b.Store.Lock(ctx, "fetch-"+l.SHA256)
	if err != nil {
		return nil, err
	}
	part := b.Store.Download(l.SHA256)
	err = f.Get(ctx, l.File, part)
	var file *os.File
	if err == nil {
		file, err = os.Open(part)
	}
	if err != nil {
		unlock()
		return nil, err
	}
	return &fetched{file, unlock}, nil
}

// fetched is a file that is removed when it has been read.
type fetched struct {
	*os.File
	unlock func()
}

func (f *fetched) Close() error {
	defer f.unlock()
	return errors.Join(f.File.Close(), os.Remove(f.Name()), os.Remove(f.Name()+remote.MarkEnd))
}
