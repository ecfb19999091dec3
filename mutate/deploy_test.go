package mutate

import (
	"errors"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/ostree"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/recipes"
)

// deployed is the layout of a system of ostree.
func deployed(sysrootFree bool) disk.Layout {
	dir := ostree.Deployment{OS: "os", Commit: strings.Repeat("a", 64)}.Dir()
	const from = "ostree's deployment"
	return disk.Layout{Table: disk.Bare, Volumes: []disk.Volume{{Size: 2 << 30, FS: "ext4", Role: disk.Root}}, Mounts: []disk.Mounted{
		{Mountpoint: "/", Sub: dir, ReadOnly: true, From: from}, {Mountpoint: "/etc", Sub: dir + "/etc", From: from},
		{Mountpoint: "/sysroot", Sub: ".", ReadOnly: !sysrootFree, From: from}, {Mountpoint: "/var", Sub: "ostree/deploy/os/var", From: from},
	}}
}

// TestKeysOfOstree: the mode decides what steps see, so that each has layers of its own; to
// say the default one is to say nothing, and how many deployments stay is of the image.
func TestKeysOfOstree(t *testing.T) {
	w := newWorld(t)
	base := w.roomyBase(t, deployed(false))
	keys := func(said string) (prepare, last record.Key) {
		p := w.planned(t, threeSteps().edit(t, "base: debian-12\n", "base: debian-12\n"+said), base, ApplyOptions{})
		return p.prepare.key, p.last()
	}
	plain, plainLast := keys("")
	material := record.Material{Parent: record.Key(base.Digest), Kind: "prepare", Version: disk.MountsVersion}
	if want, err := material.Key(); err != nil || plain != want {
		t.Errorf("without a mode the key is %s, want %s (%v)", plain, want, err)
	}
	if etc, last := keys("ostree: {mode: etc}\n"); etc != plain || last != plainLast {
		t.Error("mode etc has other layers than no mode")
	}
	commit, commitLast := keys("ostree: {mode: commit}\n")
	if commit == plain || commitLast == plainLast {
		t.Error("mode commit has the layers of mode etc")
	}
	if kept, last := keys("ostree: {mode: commit, keep: 1}\n"); kept != commit || last != commitLast {
		t.Error("how many deployments stay decides about layers")
	}
	if grown, _ := keys("ostree: {mode: commit}\ndisk: {size: 20G}\n"); grown == commit || grown == plain {
		t.Error("a larger disk has the layers of a smaller one")
	}
	base.Layout = deployed(true)
	if free, _ := keys(""); free == plain {
		t.Error("a system whose /sysroot can be written to has the layers of one where it cannot")
	}
}

// TestOstreeRefused: what the base cannot do is told before anything is made.
func TestOstreeRefused(t *testing.T) {
	layout := deployed(false)
	for _, tc := range []struct {
		name   string
		mode   string
		layout disk.Layout
		loader string // of the default deployment, "" if it is not known
		class  fault.Class
		want   string
	}{
		{"no deployment", recipes.OstreeCommit, bareLayout, "", fault.Recipe, "recipe.yaml:4:9: ostree: the base is no deployment of ostree"},
		{"no deployment", recipes.OstreeEtc, bareLayout, "", fault.Recipe, "recipe.yaml:4:9: ostree: the base is no deployment of ostree"},
		{"another loader", recipes.OstreeCommit, layout, "grub", fault.Image, "/boot/grub2/grub.cfg, which is not of loader entries"},
		{"another loader, and /usr stays", recipes.OstreeEtc, layout, "grub", "", ""},
		{"loader entries", recipes.OstreeCommit, layout, "bls", "", ""},
		{"of an older imgmut", recipes.OstreeCommit, layout, "", "", ""},
	} {
		if tc.loader != "" {
			tc.layout.Deployments = []ostree.Deployment{{Loader: tc.loader, Entry: "/boot/grub2/grub.cfg"}}
		}
		r, err := recipes.Parse("recipe.yaml", []byte("version: 1\nname: a\nbase: b\nostree: {mode: "+tc.mode+"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		err = checkOstree(r, &tc.layout)
		lacksMend := tc.class == fault.Image && fault.Mend(err) == ""
		if (err == nil) != (tc.want == "") || err != nil && !strings.HasPrefix(err.Error(), tc.want) || lacksMend || fault.Of(err) != tc.class {
			t.Errorf("%s: %v (%s), want %q (%s), and of an image a mend", tc.name, err, fault.Of(err), tc.want, tc.class)
		}
	}
}

// TestHintOfAStepInUsr: the way out is that of deployments, whatever else is read-only.
func TestHintOfAStepInUsr(t *testing.T) {
	e := &StepError{Err: fault.New(fault.Step, mendUsr, "%w: /usr/x is read-only", errors.New("exit status 1")),
		Tail: []string{"touch: cannot touch '/usr/x': Read-only file system"}, Sealed: []disk.Mounted{{Mountpoint: "/boot/efi"}}}
	if e.Hint() != mendUsr {
		t.Errorf("hint %q", e.Hint())
	}
	for line, want := range map[string][]string{
		"touch: cannot touch '/usr/made': Read-only file system":                          {"/usr/made"},
		"mkdir: cannot create directory ‘/usr/lib/x’: Read-only file system":              {"/usr/lib/x"},
		"/run/imgmut/script: 1: cannot create /usr/bin/made: Read-only file system":       {"/run/imgmut/script", "/usr/bin/made"},
		"dpkg: error: cannot write to /var/lib/dpkg/lock (Read-only file system)":         {"/var/lib/dpkg/lock"},
		"OSError: [Errno 30] Read-only file system: '/usr/lib/python3/x.pyc'":             {"/usr/lib/python3/x.pyc"},
		"error: can't create transaction lock on /usr/lib/sysimage/rpm/.rpm.lock (EROFS)": {"/usr/lib/sysimage/rpm/.rpm.lock"},
	} {
		if got := pathIn().FindAllString(line, -1); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%q has the paths %q, want %q", line, got, want)
		}
	}
}
