package step

import (
	"context"
	"path"
	"strings"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/recipes"
)

var runKind = recipes.Kind[Step]{
	Name:    "run",
	Version: 1,
	Summary: "run a shell script or a program in the image",
	Example: `
- run: |
    useradd --create-home builder
    install -d -o builder /home/builder/src
- run: [ldconfig, -v]
- network: true
  run:
    script: curl -fsSL https://example.org/key.asc -o /etc/apt/keyrings/example.asc
    workdir: /etc
    timeout: 1m
    env: {http_proxy: "http://proxy:3128"}
- run: {script: /usr/local/sbin/change-boot-menu, boot: true}
`,
	New: func() Step { return new(Run) },
}

// Run runs a shell script (sh -e, or the interpreter its first line names) or
// a program with arguments. What it leaves running is killed when it ends.
type Run struct {
	Script  string            `yaml:"script" json:"script,omitempty"`
	Argv    []string          `yaml:"argv" json:"argv,omitempty"`
	Env     map[string]string `yaml:"env" json:"env,omitempty"`
	Workdir string            `yaml:"workdir" json:"workdir,omitempty"`
	Timeout recipes.Duration  `yaml:"timeout" json:"-"` // decides whether it ends, not how
	// Works says whether it works on how the image starts; without it the names of
	// programs do that are known for it. It is part of the key as that.
	Works *bool `yaml:"boot" json:"-"`
}

// FromScalar reads the short form, a script.
func (r *Run) FromScalar(s string) error { r.Script = s; return nil }

// FromList reads the short form, a program and its arguments.
func (r *Run) FromList(l []string) error { r.Argv = l; return nil }

// Validate implements [Step].
func (r *Run) Validate(o recipes.Options) recipes.Problems {
	v := o.Validation()
	script, argv := strings.TrimSpace(r.Script) != "", len(r.Argv) > 0
	v.Want(script || argv, "", "nothing to run: want a script or a list of a program and its arguments")
	v.Want(r.Script == "" || !argv, "argv", "want either script or argv, not both")
	v.Want(!argv || r.Argv[0] != "", "argv", "the program has no name")
	v.Want(r.Workdir == "" || path.IsAbs(r.Workdir), "workdir", "%q: want an absolute path in the image", r.Workdir)
	v.Want(r.Timeout >= 0, "timeout", "want a duration above zero")
	return v.Problems()
}

// bootPrograms are programs that work on how an image starts, and package managers, which
// run them.
var bootPrograms = lazyregexp.New(`(^|[^\w.-])(` + strings.Join([]string{
	`update-grub2?`, `grub2?-(mkconfig|install|probe|bios-setup|editenv|set-default|reboot|switch-to-blscfg)`, `grubby`,
	`update-initramfs`, `mkinitramfs`, `dracut`, `mkinitcpio`, `mkinitfs`, `kernel-install`, `installkernel`, `bootctl`, `ukify`,
	`sdbootutil`, `update-bootloader`, `u-boot-update`, `extlinux`, `zipl`, `efibootmgr`,
	`apt`, `apt-get`, `aptitude`, `dpkg`, `dpkg-reconfigure`, `dnf5?`, `microdnf`, `yum`, `rpm`, `zypper`, `pacman`, `apk`,
}, "|") + `)($|[^\w.-])`)

// Boot implements [Booter].
func (r *Run) Boot() bool {
	if r.Works != nil {
		return *r.Works
	}
	return bootPrograms().MatchString(r.Script + "\n" + strings.Join(r.Argv, " "))
}

// Apply implements [Step].
func (r *Run) Apply(ctx context.Context, g Guest, _ *Source) error {
	return g.Run(ctx, agent.Command{
		Argv: r.Argv, Script: r.Script, Env: r.Env, Dir: r.Workdir, Timeout: r.Timeout.Duration(),
	})
}
