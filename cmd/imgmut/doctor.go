package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/imgmut/imgmut/machined"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/reflink"
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

func (c *commands) doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "tell what this machine has and lacks, and the mend", OnUsageError: usageError,
		Description: `Changes nothing. One of the two hosts is enough: the machine's own systemd
("system"), or the one that imgmut starts for itself ("private").

EXIT STATUS: 4 if images cannot be made here.`,
		Action: func(ctx *cli.Context) error {
			if err := wantArgs(ctx, 0, 0, "no argument"); err != nil {
				return err
			}
			list := storeFindings(ctx.String("store"))
			list = append(list, toolFindings()...)
			usable := map[string]bool{string(machined.Private): true, string(machined.System): true}
			for _, check := range machined.Probe(ctx.Context) {
				f := finding{Name: check.Name, Found: check.Found, OK: check.Err == nil, Mend: check.Mend}
				if check.Mode != machined.Auto {
					f.For = string(check.Mode) + " host"
				}
				if check.Err != nil {
					f.Fault = check.Err.Error()
					for mode := range usable {
						if check.Mode == machined.Auto || string(check.Mode) == mode {
							usable[mode] = false
						}
					}
				}
				list = append(list, f)
			}
			if err := c.print(list, func(w io.Writer) { printFindings(w, list) }); err != nil {
				return err
			}
			for _, f := range list {
				if !f.OK && f.For == "" {
					return fault.New(fault.Host, "", "images cannot be made here: %s", f.Name)
				}
			}
			if !usable[string(machined.Private)] && !usable[string(machined.System)] {
				return fault.New(fault.Host, "", "images cannot be made here: neither the machine's systemd nor a private one can be used")
			}
			return nil
		},
	}
}

func printFindings(w io.Writer, list []finding) {
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

// storeFindings looks at the directory of the store, or the one it would be
// made in.
func storeFindings(dir string) []finding {
	f := finding{Name: "store " + dir, OK: true, Found: "reflinks"}
	if _, err := os.Stat(filepath.Join(dir, "pool.xfs")); err == nil {
		f.Found = "a pool in " + filepath.Join(dir, "pool.xfs")
		return []finding{f}
	}
	for dir != "/" {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	_, noTool := exec.LookPath("mkfs.xfs")
	err := reflink.Probe(dir)
	switch {
	case err == nil:
	case errors.Is(err, reflink.ErrUnsupported) && !mount.KernelHas("xfs"):
		f.OK, f.Fault, f.Mend = false, "its filesystem cannot reflink, and this kernel has no XFS to make a pool of", "put the store on btrfs"
	case errors.Is(err, reflink.ErrUnsupported) && noTool != nil:
		f.OK, f.Fault, f.Mend = false, "its filesystem cannot reflink, and there is no mkfs.xfs to make a pool", "install the package xfsprogs"
	case errors.Is(err, reflink.ErrUnsupported):
		f.Found = "cannot reflink: imgmut makes a pool, a sparse XFS file, in it"
	default:
		f.OK, f.Fault, f.Mend = false, err.Error(), "choose another with --store, or run as root"
	}
	return []finding{f}
}

// toolFindings looks for the programs that some images need.
func toolFindings() []finding {
	var list []finding
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
