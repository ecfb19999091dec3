package mutate

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/guest"
	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/recipes"
)

// A step that works on how the image starts (see [step.Booter]) gets what programs for
// that ask a machine for: the disk, by the names that it has in a virtual machine; what
// udev knows of it; the EFI system partition, if the kernel cannot mount that; and the
// word that they run for any machine, and not for the one that builds the image.

// lending is what one such step gets.
type lending struct {
	lent   *disk.Lent
	covers []agent.Cover
	env    map[string]string
	note   func(string)
}

// checkPlainOnly refuses steps that are of no use to a base of ostree. It is a problem of
// the recipe.
func checkPlainOnly(l *disk.Layout, specs []recipes.Step, steps []step.Decoded) error {
	var problems recipes.Problems
	for i, d := range steps {
		if s, ok := d.Value.(step.PlainOnly); ok && l.Deployed() != "" {
			p := specs[i].Options.Problem("", "%s", s.PlainOnly())
			p.Hint = "have the kernel and its initrd, or the boot loader, come with a container image: bootc: {image: …}"
			problems = append(problems, p)
		}
	}
	return recipes.Merge(problems)
}

// lendEnv is what its commands have in their environment.
var lendEnv = map[string]string{
	// bootctl and kernel-install look whether the ESP is a mount of vfat, on a disk with a
	// GPT, as udev knows it (systemd's ENVIRONMENT.md).
	"SYSTEMD_RELAX_ESP_CHECKS": "1", "SYSTEMD_RELAX_XBOOTLDR_CHECKS": "1",
	// There is one system in an image, whatever disks the machine has (grub-mkconfig).
	"GRUB_DISABLE_OS_PROBER": "true",
}

// anyMachine has programs that make an initrd make one for any machine, whatever the
// image's own configuration says: they would find the drivers of the machine that builds it.
// Each file is the last that its program reads, and is there for the step alone: also where
// the image has no such program, which the step may install.
var anyMachine = []struct {
	installer string // that the image has, if there is one that has the program
	cover     agent.Cover
}{
	{"usr/bin/dpkg", agent.Cover{Reader: "/usr/sbin/mkinitramfs", Path: "/etc/initramfs-tools/conf.d/zzz-imgmut", Mode: 0o644,
		Content: "MODULES=most\n"}},
	{"", agent.Cover{Reader: "/usr/bin/dracut", Path: "/etc/dracut.conf.d/zzz-imgmut.conf", Mode: 0o644,
		Content: "hostonly=\"no\"\nhostonly_cmdline=\"no\"\n"}},
	{"usr/bin/pacman", agent.Cover{Reader: "/usr/bin/mkinitcpio", Path: "/etc/mkinitcpio.conf.d/zzz-imgmut.conf", Mode: 0o644,
		Content: `for i in "${!HOOKS[@]}"; do if [ "${HOOKS[i]}" = autodetect ]; then unset "HOOKS[i]"; fi; done` + "\n"}},
}

// lend gets ready what a step is lent.
func (b *build) lend(g *guest.Guest) (*lending, error) {
	l := &lending{lent: b.guests.lent, env: lendEnv, note: b.note}
	if l.lent == nil {
		return nil, errors.New("the guest was started without the disk that this step needs")
	}
	if err := g.Flush(); err != nil { // the disk is to have what the files are
		return nil, err
	}
	if err := l.lent.Begin(disk.TreeAt(g.Root())); err != nil {
		return nil, err
	}
	files, err := l.lent.Files()
	if err != nil {
		return nil, err
	}
	for name, text := range files {
		l.covers = append(l.covers, agent.Cover{Path: name, Content: text, Mode: 0o644})
	}
	l.covers = append(l.covers, settings(disk.TreeAt(g.Root()), g.Cmdline)...)
	return l, nil
}

// settings are what programs for kernels and initrds are told of an image.
func settings(tree *disk.Tree, cmdline string) (covers []agent.Cover) {
	for _, a := range anyMachine {
		if a.installer == "" || etc.Exists(tree, a.installer) || etc.Exists(tree, a.cover.Reader[1:]) {
			covers = append(covers, a.cover)
		}
	}
	return append(covers, kernelInstall(tree, cmdline)...)
}

// kernelInstall is what kernel-install(8) is told of an image that says nothing itself.
func kernelInstall(tree *disk.Tree, cmdline string) (covers []agent.Cover) {
	const reader = "/usr/bin/kernel-install"
	// What a new entry has as its command line is what the system was started with, where
	// no file says. But since systemd 256 a container is known by its process ids, which a
	// step cannot hide, and then kernel-install leaves it empty.
	if !etc.Exists(tree, "etc/kernel/cmdline") && !etc.Exists(tree, "usr/lib/kernel/cmdline") {
		covers = append(covers, agent.Cover{Reader: reader, Path: "/etc/kernel/cmdline", Content: cmdline + "\n", Mode: 0o644})
	}
	if token := entryToken(tree); token != "" {
		covers = append(covers, agent.Cover{Reader: reader, Path: "/etc/kernel/entry-token", Content: token + "\n", Mode: 0o644})
	}
	return covers
}

// maxMachineID is more than a file with one has, in bytes.
const maxMachineID = 64

// entryToken is by which name kernel-install(8) is to call the entries of an image that
// has no machine-id yet, and says none itself: "" if it has. Otherwise kernel-install
// would make one up, and all machines that start from the image would have it, by their
// command line.
func entryToken(tree *disk.Tree) string {
	id := strings.TrimSpace(etc.ReadUpTo(tree, "etc/machine-id", maxMachineID))
	if id != "" && id != "uninitialized" || etc.Exists(tree, "etc/kernel/entry-token") {
		return ""
	}
	release := etc.ReadUpTo(tree, "etc/os-release", maxRelease)
	if release == "" {
		release = etc.ReadUpTo(tree, "usr/lib/os-release", maxRelease)
	}
	says := etc.ParseOSRelease(release)
	token := cmp.Or(says["IMAGE_ID"], says["ID"], "linux")
	if token != path.Base(token) || strings.HasPrefix(token, ".") {
		return "linux"
	}
	return token
}

// maxRelease is more than an os-release has, in bytes.
const maxRelease = 64 << 10

// run runs a command with what is lent. scratch is a directory for files on their way.
func (l *lending) run(ctx context.Context, c agent.Command, scratch string, exec func(agent.Command) error) error {
	places, err := l.lent.Stage(ctx, l.note)
	if err != nil {
		return err
	}
	c.Lend = agent.Lend{Dev: true, Places: places}
	c.Covers = append(append([]agent.Cover{}, c.Covers...), l.covers...)
	env := maps.Clone(l.env)
	maps.Copy(env, c.Env)
	c.Env = env
	err = exec(c)
	var exit *agent.ExitError
	if err == nil || errors.As(err, &exit) { // which the step may take for an answer
		err = errors.Join(err, l.lent.Unstage(ctx, scratch))
	}
	return err
}
