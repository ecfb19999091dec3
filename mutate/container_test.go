package mutate

import (
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/ostree"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/recipes"
)

// TestOriginOf: where a booted system looks for its updates is a registry, or nowhere.
func TestOriginOf(t *testing.T) {
	const sum = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		of   recipes.ContainerImage
		to   string
		want string
	}{
		{recipes.ContainerImage{Transport: "docker", Name: "quay.io/a"}, "", "quay.io/a:latest"},
		{recipes.ContainerImage{Transport: "docker", Name: "quay.io/a", Tag: "1"}, "", "quay.io/a:1"},
		{recipes.ContainerImage{Transport: "docker", Name: "quay.io/a", Tag: "1", Digest: sum}, "", "quay.io/a:1"},
		{recipes.ContainerImage{Transport: "docker", Name: "quay.io/a", Digest: sum}, "", "quay.io/a@" + sum},
		{recipes.ContainerImage{Transport: "docker", Name: "quay.io/a"}, "quay.io/b:2", "quay.io/b:2"},
		{recipes.ContainerImage{Transport: "containers-storage", Name: "quay.io/a", Tag: "1"}, "", "quay.io/a:1"},
		{recipes.ContainerImage{Transport: "containers-storage", Name: "quay.io/a", Digest: sum}, "", "quay.io/a@" + sum},
		{recipes.ContainerImage{Transport: "containers-storage", Name: "localhost/a", Tag: "1"}, "", ""},
		{recipes.ContainerImage{Transport: "containers-storage", Name: "[vfs@/a.b]quay.io/a"}, "", ""},
		{recipes.ContainerImage{Transport: "containers-storage", Name: "a"}, "", ""},
		{recipes.ContainerImage{Transport: "oci", Name: "/a.b/c"}, "", ""},
		{recipes.ContainerImage{Transport: "oci-archive", Name: "a.tar", Tag: "1"}, "quay.io/b:2", "quay.io/b:2"},
	} {
		if got := originOf(recipes.Bootc{Image: c.of, Target: c.to}); got != c.want {
			t.Errorf("%+v, target %q: %q, want %q", c.of, c.to, got, c.want)
		}
	}
}

// TestContainerKey: what is in the layer of a container image is in its key, and no more.
func TestContainerKey(t *testing.T) {
	key := func(c container, parent record.Key, keep int) record.Key {
		t.Helper()
		m, err := c.material(parent, keep)
		if err != nil {
			t.Fatal(err)
		}
		k, err := m.Key()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	is := container{digest: "sha256:a", origin: "quay.io/a:1"}
	first := key(is, "p", 0)
	if named := (container{digest: "sha256:a", origin: "quay.io/a:1", name: "docker://quay.io/a:1"}); key(named, "p", 0) != first {
		t.Error("its name is in the key")
	}
	for what, k := range map[string]record.Key{
		"digest": key(container{digest: "sha256:b", origin: is.origin}, "p", 0), "origin": key(container{digest: is.digest}, "p", 0),
		"parent": key(is, "q", 0), "keep": key(is, "p", 1),
	} {
		if k == first {
			t.Errorf("the %s is not in the key", what)
		}
	}
}

// TestCheckBootc: a container image is for a disk with deployments, and for no other.
func TestCheckBootc(t *testing.T) {
	r, err := recipes.Parse("r.yaml", []byte("version: 1\nname: x\nbase: b\nbootc: {image: \"oci:d\"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	err = checkBootc(r, &disk.Layout{})
	if err == nil || !strings.HasPrefix(err.Error(), "r.yaml:4:8: bootc.image: the base is no deployment of ostree") {
		t.Errorf("of another system: %v", err)
	}
	system := &disk.Layout{Mounts: []disk.Mounted{{Mountpoint: "/", Sub: "ostree/deploy/os/deploy/x.0", From: "ostree's deployment"}}}
	if err := checkBootc(r, system); err != nil {
		t.Error(err)
	}
	system.Deployments = []ostree.Deployment{{Loader: "grub", Entry: "/boot/grub2/grub.cfg"}}
	if err := checkBootc(r, system); fault.Of(err) != fault.Image || !strings.Contains(err.Error(), "not of loader entries") {
		t.Errorf("of a system whose boot loader reads no entries: %v", err)
	}
}

// TestNeedOstree: what deployments take is asked for before anything is made, and only if
// one is made.
func TestNeedOstree(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	made := &bootcLink{ready: true}
	for what, c := range map[string]struct {
		plan  plan
		needs bool
	}{
		"steps alone": {plan{}, false}, "mode commit": {plan{commits: true}, true}, "a container image": {plan{bootc: &bootcLink{}}, true},
		"one that is a layer": {plan{bootc: made}, false}, "that, and mode commit": {plan{bootc: made, commits: true}, true},
	} {
		c.plan.recipe = &recipes.Recipe{}
		if err := needOstree(&c.plan); (fault.Of(err) == fault.Host) != c.needs {
			t.Errorf("%s: %v", what, err)
		}
	}
}
