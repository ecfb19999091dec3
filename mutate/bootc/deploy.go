package bootc

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// Deploy says how an image becomes the system of a disk.
type Deploy struct {
	OS string // the state root
	// Origin is the image that bootc is to update it from, as HOST/NAME:TAG of a registry;
	// empty if it is not to.
	Origin string
	Keep   int // how many deployments of the state root stay, as [ostree.Sysroot.Drop] has it
}

// names of commits as bootc has them.
const (
	blobRefs  = "ostree/container/blob/"
	imageRefs = "ostree/container/image/"
	// unverified is how bootc names an image of a registry of which it asks no signature.
	unverified = "ostree-unverified-registry:"
)

// room is where the repository is for an ostree that deploys.
const room = "containers"

// Directory is the repository as one of the directories that a sysroot is opened with, for
// [Repository.Deploy].
func (r *Repository) Directory() (map[string]*os.File, error) {
	dir, err := mount.Directory(filepath.Join(r.Dir, "ostree", "repo"), true)
	if err != nil {
		return nil, err
	}
	return map[string]*os.File{room: dir}, nil
}

// Deploy makes an image the default deployment of a system. The /etc of that is the
// image's, with what the deployment before had changed; the kernel's arguments are those
// that it had.
func (r *Repository) Deploy(ctx context.Context, s *ostree.Sysroot, i *Image, d Deploy) error {
	before, err := s.Deployments()
	if err != nil {
		return err
	}
	if err := before[0].Committable(); err != nil {
		return err
	}
	if i.Composefs || before[0].Composefs {
		if err := ostree.NeedComposefs(ctx, "the container image's system"); err != nil {
			return err
		}
	}
	if i.Encapsulated {
		d.Origin = ""
	}
	pull := []string{"pull-local", repo, "/" + room, i.Commit}
	if d.Origin != "" {
		for _, l := range i.Layers {
			pull = append(pull, l.Commit)
		}
	}
	if _, err := s.Run(ctx, "copy the container image into the disk", nil, pull...); err != nil {
		return err
	}
	name := func(commit, ref string) error {
		_, err := s.Run(ctx, "name a commit", nil, "refs", repo, "--force", "--create="+ref, commit)
		return err
	}
	origin := "[origin]\n"
	if d.Origin != "" {
		for _, l := range i.Layers {
			if err := name(l.Commit, blobRefs+escape(l.Digest)); err != nil {
				return err
			}
		}
		if err := name(i.Commit, imageRefs+escape("docker://"+d.Origin)); err != nil {
			return err
		}
		origin += "container-image-reference=" + unverified + d.Origin + "\n"
	}
	if err := s.Deploy(ctx, ostree.Deploy{OS: d.OS, Commit: i.Commit, Origin: origin, Options: []string{"--retain"}}); err != nil {
		return err
	}
	after, err := s.Deployments()
	if err != nil {
		return err
	}
	if after[0].Commit != i.Commit {
		return fmt.Errorf("the default deployment is /%s, not the new one of %s", after[0].Dir(), i.Commit)
	}
	if err := s.Drop(ctx, after, d.Keep); err != nil {
		return err
	}
	return forget(ctx, s)
}

// forget drops the images that no deployment is of, and the layers that none of the others
// has, as bootc does.
func forget(ctx context.Context, s *ostree.Sysroot) error {
	deployed, err := deployedCommits(ctx, s)
	if err != nil {
		return err
	}
	images, err := list(ctx, s, strings.TrimSuffix(imageRefs, "/"))
	if err != nil {
		return err
	}
	var gone []string
	needed := map[string]bool{}
	for _, ref := range images {
		commit, err := s.Run(ctx, "read a name", nil, "rev-parse", repo, ref)
		if err != nil {
			return err
		}
		if !slices.Contains(deployed, commit) {
			gone = append(gone, ref)
			continue
		}
		manifest, err := s.Run(ctx, "read a manifest", nil, "show", repo, "--print-metadata-key=ostree.manifest", commit)
		if err != nil {
			return err
		}
		for _, digest := range digests().FindAllString(manifest, -1) {
			needed[blobRefs+escape(digest)] = true
		}
	}
	blobs, err := list(ctx, s, strings.TrimSuffix(blobRefs, "/"))
	if err != nil {
		return err
	}
	for _, ref := range blobs {
		if !needed[ref] {
			gone = append(gone, ref)
		}
	}
	if len(gone) > 0 {
		if _, err := s.Run(ctx, "drop what no deployment is of", nil, append([]string{"refs", repo, "--delete"}, gone...)...); err != nil {
			return err
		}
	}
	return s.Cleanup(ctx)
}

var digests = lazyregexp.New(`sha256:[0-9a-f]{64}`)

// list gives the names of commits below a prefix.
func list(ctx context.Context, s *ostree.Sysroot, prefix string) ([]string, error) {
	out, err := s.Run(ctx, "list the names of commits", nil, "refs", repo, "--list", prefix)
	return strings.Fields(out), err
}

// deployedCommits are those that ostree keeps for deployments, by the names that it has
// for these.
func deployedCommits(ctx context.Context, s *ostree.Sysroot) (commits []string, err error) {
	for _, prefix := range []string{"ostree/0", "ostree/1"} {
		refs, err := list(ctx, s, prefix)
		if err != nil {
			return nil, err
		}
		for _, ref := range refs {
			commit, err := s.Run(ctx, "read a name", nil, "rev-parse", repo, ref)
			if err != nil {
				return nil, err
			}
			commits = append(commits, commit)
		}
	}
	return commits, nil
}

// escape makes part of a name of a commit, as ostree-ext does (refescape.rs): letters,
// digits and - are themselves, _ is doubled, and / is itself where a part may end so.
func escape(s string) string {
	var out strings.Builder
	var last byte = '/'
	for n := range len(s) {
		c := s[n]
		switch {
		case isAlphanumeric(c) || c == '-':
			out.WriteByte(c)
		case c == '/' && isAlphanumeric(last):
			out.WriteByte(c)
		case c == '_':
			out.WriteString("__")
		default:
			fmt.Fprintf(&out, "_%02X_", c)
		}
		last = c
	}
	return out.String()
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
