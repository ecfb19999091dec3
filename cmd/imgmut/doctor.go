package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/machined"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/printable"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/store"
	"github.com/imgmut/imgmut/mutate/tool"
)

// finding is one line of doctor.
type finding struct {
	Name  string `json:"name"`
	Found string `json:"found,omitempty"`
	OK    bool   `json:"ok"`
	Fault string `json:"fault,omitempty"`
	Mend  string `json:"mend,omitempty"`
	// For says which of the two hosts needs it, or what else does; empty if
	// nothing works without.
	For string `json:"for,omitempty"`
}

var doctorCommand = &spec{
	name: "doctor", group: groupStore, args: "[NAME|FILE]",
	summary: "tell what this machine lacks, or what is in an image",
	text: `Changes nothing. Of the machine it tells what it has and lacks, and the mend. One
of the two hosts is enough: the machine's own systemd ("system"), or the one that
imgmut starts for itself ("private").

Of an image or base of the store, or any raw image file, it tells the partitions,
what the system mounts where and which file says so, what its boot loaders start,
what is wrong with it, and why imgmut would refuse it.`,
	faults:   []fault.Class{fault.Host, fault.Image, fault.NotFound}, // images cannot be made here, or of that
	examples: []string{"imgmut doctor", "imgmut doctor debian-12.raw"},
	run: func(ctx context.Context, s *session, a args) (result, error) {
		if len(a.list) > 0 {
			return s.look(ctx, a.list[0])
		}
		list := slices.Concat(storeFindings(s.dir), toolFindings(), filesystemFindings(), namespaceFindings())
		hosts, usable := hostFindings(ctx)
		list = append(list, hosts...)
		for _, f := range list {
			if !f.OK && f.For == "" {
				return list, fault.New(fault.Host, "", "images cannot be made here: %s", f.Name)
			}
		}
		if !usable {
			return list, fault.New(fault.Host, "",
				"images cannot be made here: neither the machine's systemd nor a private one can be used")
		}
		return list, nil
	},
}

// hostFindings looks at both hosts, of which one is enough to be usable.
func hostFindings(ctx context.Context) (list findings, usable bool) {
	lacks := map[machined.Mode]bool{}
	for _, check := range machined.Probe(ctx) {
		f := finding{Name: check.Name, Found: check.Found, OK: check.Err == nil, Mend: check.Mend}
		if check.Mode != machined.Auto {
			f.For = string(check.Mode) + " host"
		}
		if check.Err != nil {
			f.Fault = check.Err.Error()
			lacks[check.Mode] = true
		}
		list = append(list, f)
	}
	return list, !lacks[machined.Auto] && !(lacks[machined.Private] && lacks[machined.System])
}

type findings []finding

func (list findings) Text(w io.Writer) {
	for _, f := range list {
		word, rest := "ok", f.Found
		if !f.OK {
			word, rest = "LACKS", f.Fault
			if f.For != "" {
				word = "lacks"
			}
		}
		fmt.Fprintf(w, "%-5s  %s", word, f.Name)
		if rest != "" {
			fmt.Fprintf(w, ": %s", rest)
		}
		if f.For != "" && !f.OK {
			fmt.Fprintf(w, " (for: %s)", f.For)
		}
		fmt.Fprintln(w)
		if !f.OK && f.Mend != "" {
			fmt.Fprintf(w, "       hint: %s\n", f.Mend)
		}
	}
}

// filesystemFindings looks for the one filesystem that imgmut can do without in the
// kernel, in part.
func filesystemFindings() findings {
	f := finding{Name: "vfat", OK: mount.KernelHas("vfat"), For: "commands of steps that use the EFI system partition"}
	if f.Found = "this kernel has it"; !f.OK {
		f.Found, f.Fault = "", "this kernel does not have it"
		f.Mend = "modprobe vfat; without it write and copy reach that partition"
	}
	return findings{f}
}

// namespaceFindings looks for what keeps steps from user namespaces of their own,
// in which they start below that of the guest. Whether Ubuntu's restriction
// counts a guest's root as unprivileged has not been tried.
func namespaceFindings() findings {
	const setting = "kernel.apparmor_restrict_unprivileged_userns"
	f := finding{Name: "user namespaces", OK: true, Found: "not restricted"}
	b, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(setting, ".", "/"))
	if err == nil && strings.TrimSpace(string(b)) != "0" {
		f.OK, f.Fault = false, "AppArmor restricts them ("+setting+")"
		f.For, f.Mend = "steps, if they do not start", "sysctl -w "+setting+"=0"
	}
	return findings{f}
}

// storeFindings looks at the directory of the store, or the one it would be
// made in.
func storeFindings(dir string) findings {
	f := finding{Name: "store " + dir, OK: true}
	if err := store.Trusted(dir); err != nil {
		f.OK, f.Fault, f.Mend = false, err.Error(), fault.Mend(err)
		return findings{f}
	}
	pool := filepath.Join(dir, "pool.xfs")
	for dir != "/" {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	fs, err := reflink.Filesystem(dir)
	if err != nil {
		f.OK, f.Fault = false, err.Error()
		return findings{f}
	}
	free := "?"
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err == nil {
		free = printable.Size(int64(st.Bavail) * st.Bsize)
	}
	f.Found = fs + ", reflinks"
	if _, err := os.Stat(pool); err == nil {
		f.Found = "a pool in " + pool + ", on " + fs
	} else {
		f.reflinks(dir, fs)
	}
	if f.OK {
		f.Found += ", " + free + " free"
	}
	return findings{f}
}

// reflinks finds out whether files in dir can be cloned, and if not, whether there can be a pool.
func (f *finding) reflinks(dir, fs string) {
	_, noTool := exec.LookPath("mkfs.xfs")
	err := reflink.Probe(dir)
	off := ""
	if fs == "ZFS" {
		off = reflink.CloningOff(reflink.ZFSParameters)
	}
	switch {
	case err == nil && fs == "ZFS":
		f.Found += " (not tried by imgmut's tests; digests read whole images there)"
	case err == nil:
	case !errors.Is(err, reflink.ErrUnsupported):
		f.OK, f.Fault, f.Mend = false, err.Error(), "choose another with --store, or run as root"
	case !mount.KernelHas("xfs"):
		f.OK, f.Mend = false, "put the store on btrfs"
		f.Fault = fs + " cannot reflink, and this kernel has no XFS to make a pool of"
	case noTool != nil:
		f.OK, f.Mend = false, "install the package xfsprogs"
		f.Fault = fs + " cannot reflink, and there is no mkfs.xfs to make a pool"
	case off != "":
		f.Found = "ZFS does not clone blocks, for " + off + " (OpenZFS 2.3 and later do it safely: echo 1 > " +
			reflink.ZFSParameters + "/zfs_bclone_enabled): imgmut makes a pool, a sparse XFS file, in it"
	default:
		f.Found = fs + " cannot reflink: imgmut makes a pool, a sparse XFS file, in it"
	}
}

// toolFindings looks for the programs that some images need.
func toolFindings() findings {
	var list findings
	for _, p := range tool.Programs() {
		f := finding{Name: p.Name, For: p.Use, OK: true}
		path, err := p.Path()
		if f.Found = path; err != nil {
			f.OK, f.Fault, f.Mend = false, "not installed", p.Mend()
		}
		list = append(list, f)
	}
	return list
}
