package ostree

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/mutate/fault"
)

// DefaultKeep is how many deployments of a state root stay if nothing else is said: the
// new one, and the one before it to go back to.
const DefaultKeep = 2

// Change says how what steps have left becomes a deployment.
type Change struct {
	Of   string    // the directory of the deployment that they ran in
	Keep int       // how many deployments of its state root stay, not counted those that are pinned; 0 is [DefaultKeep]
	Time time.Time // of the commit
	Note func(string)
}

// tree is where a commit is put together.
const tree = Work + "/t"

// bootcKeys are what bootc reads of the commit that it runs on (ostree-ext's container
// store): without them each of its commands fails.
var bootcKeys = []string{"ostree.manifest-digest", "ostree.manifest", "ostree.container.image-config"}

// Finish makes a commit of what steps have changed, and a deployment of that the default.
//
// /etc is no part of the commit. ostree makes that of the new deployment: the commit's
// own, with what the old deployment had changed, which wins. So what steps did to /etc is
// put there last: in the commit a user that a step has added would be lost wherever the
// image has one of its own. If nothing but /etc has changed, the commit is the old one.
//
// It changes nothing if the steps have not, and leaves nothing of [Work].
func (s *Sysroot) Finish(ctx context.Context, c Change) error {
	usr, etc, err := s.Changed(c.Of)
	if err != nil {
		return err
	}
	if etc {
		if err := s.checkEtc(); err != nil {
			return err
		}
	}
	if usr || etc {
		if err := s.finish(ctx, c, usr, etc); err != nil {
			return fmt.Errorf("make a deployment of what the steps changed: %w", err)
		}
	}
	return RemoveWork(s.Root)
}

// checkEtc refuses steps after which there is no directory /etc.
func (s *Sysroot) checkEtc() error {
	etc, err := openat(s.Root, Upper+"/etc", unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return fault.New(fault.Step, "leave a directory there, with what it has",
			"the steps have removed /etc, or put something in its place: no deployment can be without")
	}
	if err != nil {
		return err
	}
	return etc.Close()
}

func (s *Sysroot) finish(ctx context.Context, c Change, usr, etc bool) error {
	before, err := s.Deployments()
	if err != nil {
		return err
	}
	old := before[0]
	if old.Dir() != c.Of {
		return fault.New(fault.Image, "ostree admin set-default, on a machine that runs it",
			"/%s is what the boot loader starts, and the first deployment for ostree is /%s", c.Of, old.Dir())
	}
	if err := old.Committable(); err != nil {
		return err
	}
	if old.Composefs {
		if err := NeedComposefs(ctx, "/"+old.Dir()); err != nil {
			return err
		}
	}
	commit := old.Commit
	if usr {
		if commit, err = s.commit(ctx, old, c); err != nil {
			return err
		}
	}
	origin, err := s.origin(old)
	if err != nil {
		return err
	}
	if err := s.Deploy(ctx, Deploy{OS: old.OS, Commit: commit, Origin: origin, Options: []string{"--retain"}}); err != nil {
		return err
	}
	after, err := s.Deployments()
	if err != nil {
		return err
	}
	if after[0].Commit != commit || slices.ContainsFunc(before, after[0].same) {
		return fmt.Errorf("the default deployment is /%s, not the new one of %s", after[0].Dir(), commit)
	}
	if etc {
		if err := s.Apply(ctx, Upper+"/etc", after[0].Dir()+"/etc", nil, true); err != nil {
			return err
		}
	}
	return s.Drop(ctx, after, c.Keep)
}

// Committable is nil if ostree can be trusted to change the deployment, which starts by
// default, as it would on the machine. Else the error is of class [fault.Image].
func (d Deployment) Committable() error {
	if d.Loader != "bls" {
		return fault.New(fault.Image, "have the boot loader read loader entries (blscfg), or leave out of the recipe what makes a new deployment",
			"%s, which is not of loader entries, would have to be made anew by a program of the image: nothing of it runs outside a step", d.Entry)
	}
	return nil
}

// commit makes the commit of what steps have changed of all but /etc.
func (s *Sysroot) commit(ctx context.Context, old Deployment, c Change) (string, error) {
	if err := s.Checkout(ctx, old.Commit, tree); err != nil {
		return "", err
	}
	if err := s.Apply(ctx, Upper, tree, mounted, false); err != nil {
		return "", err
	}
	made := Commit{
		Tree: tree, Parent: old.Commit, Linked: true, Bootable: true, Policy: s.HasPolicy(tree),
		Options: []string{"--timestamp=" + c.Time.UTC().Format(time.RFC3339)},
	}
	for _, key := range bootcKeys {
		has, err := s.HasMetadata(ctx, old.Commit, key)
		if err != nil {
			return "", err
		}
		if has {
			made.Keep = append(made.Keep, key)
		}
	}
	if old.Image != "" && len(made.Keep) > 0 {
		c.Note(fmt.Sprintf("bootc status will name %s, although /usr differs from it, "+
			"and the next bootc upgrade drops what the steps changed in /usr", old.Image))
	}
	return s.Commit(ctx, made)
}

// HasPolicy says whether a tree of a commit has a policy of SELinux that files can be
// labelled by: ostree breaks off if it is told to go by one that is not there.
func (s *Sysroot) HasPolicy(dir string) bool {
	config, err := readFile(s.Root, dir+"/usr/etc/selinux/config")
	if err != nil {
		return false
	}
	kind := parseKeys(config)[".SELINUXTYPE"]
	if kind == "" || kind != path.Base(kind) {
		return false
	}
	f, err := openat(s.Root, path.Join(dir, "usr/etc/selinux", kind, "contexts/files/file_contexts"), unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return false
	}
	defer f.Close()
	fi, err := f.Stat()
	return err == nil && fi.Mode().IsRegular()
}

// origin is that of a deployment, without what is about that one alone.
func (s *Sysroot) origin(d Deployment) (string, error) {
	text, err := readFile(s.Root, d.Dir()+".origin")
	if errors.Is(err, fs.ErrNotExist) {
		return "[origin]\n", nil
	}
	if err != nil {
		return "", err
	}
	before, _, _ := strings.Cut(text, "[libostree-transient]")
	return before, nil
}

// Drop removes the deployments of the default one's state root that are too many: the
// oldest, and none that is pinned. list are all there are; keep 0 is [DefaultKeep].
func (s *Sysroot) Drop(ctx context.Context, list []Deployment, keep int) error {
	if keep == 0 {
		keep = DefaultKeep
	}
	kept, dropped := 0, 0
	var indexes []int
	for n, d := range list {
		if d.Entry == "" || d.OS != list[0].OS || d.Pinned {
			continue
		}
		if kept++; kept > keep {
			indexes = append(indexes, n)
		}
	}
	for _, n := range slices.Backward(indexes) {
		if err := s.Undeploy(ctx, n); err != nil {
			return err
		}
		dropped++
	}
	if dropped == 0 {
		return nil
	}
	return s.Cleanup(ctx)
}

// Deployments are those of the volume as it is now, in ostree's order.
func (s *Sysroot) Deployments() (list []Deployment, err error) {
	err = s.room.Enter(func() error {
		root, err := os.OpenRoot(at)
		if err != nil {
			return err
		}
		defer root.Close()
		entries, _ := boot.Entries([]boot.Place{{At: "/", FS: root.FS()}}) // what cannot be read says nothing
		entries = slices.DeleteFunc(entries, func(e boot.Entry) bool { return Starts(e.Options) == "" })
		// ostree counts in the names of its entries, and knows of no other default.
		slices.SortStableFunc(entries, func(a, b boot.Entry) int { return boot.CompareVersions(b.ID, a.ID) })
		starts := ""
		if len(entries) > 0 {
			starts = Starts(entries[0].Options)
		}
		list, err = Find(root.FS(), entries, starts)
		return err
	})
	return list, err
}

func isMounted(name string) bool { return slices.Contains(mounted, name) }

// maxLabel is the length of a label, in bytes: they have a page at most.
const maxLabel = 4096

// label is a file's label of SELinux, "" if it has none.
func label(file string) string {
	b := make([]byte, maxLabel)
	n, err := unix.Lgetxattr(file, "security.selinux", b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}
