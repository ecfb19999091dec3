package boot

import (
	"fmt"
	"path"
	"strings"
)

// extlinuxFiles are where extlinux, syslinux and U-Boot look for a configuration.
var extlinuxFiles = []string{
	"extlinux.conf", "extlinux/extlinux.conf", "syslinux/extlinux.conf", "syslinux.cfg", "syslinux/syslinux.cfg",
	"isolinux/isolinux.cfg",
}

func (c *chain) readExtlinux() {
	for _, p := range c.places {
		for _, dir := range c.directories(p) {
			for _, name := range extlinuxFiles {
				if file := path.Join(dir, name); !c.seen[p.name(file)] {
					c.seen[p.name(file)] = true
					c.add(c.parseExtlinux(p, file)...)
				}
			}
		}
	}
}

// parseExtlinux reads a configuration: a label for each entry. Names of files are
// relative to its directory.
func (c *chain) parseExtlinux(p Place, file string) []Entry {
	loader := "extlinux"
	if path.Ext(file) == ".cfg" {
		loader = "syslinux"
	}
	var all []Entry
	var wanted, chosen string // by DEFAULT, and by MENU DEFAULT
	in := func(name string) string {
		if !path.IsAbs(name) {
			name = path.Join("/", path.Dir(file), name)
		}
		return c.onVolume(p, "", name)
	}
	number := 0
	for line := range strings.Lines(c.read(p, file)) {
		number++
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		key := strings.ToUpper(f[0])
		switch {
		case key == "DEFAULT" && wanted == "":
			wanted = f[1]
		case key == "LABEL":
			if len(all) == maxStarts {
				c.fail("%s has more than %d entries", p.name(file), maxStarts)
				return nil
			}
			all = append(all, Entry{Loader: loader, File: fmt.Sprintf("%s:%d", p.name(file), number), ID: f[1]})
		}
		if len(all) == 0 {
			continue
		}
		switch e := &all[len(all)-1]; key {
		case "MENU":
			switch strings.ToUpper(f[1]) {
			case "LABEL":
				e.Title = strings.Join(f[2:], " ")
			case "DEFAULT":
				chosen = e.ID
			}
		case "LINUX", "KERNEL":
			if !strings.HasSuffix(f[1], ".c32") { // a menu, a tool
				e.Kernel = in(f[1])
			}
		case "FDT", "DEVICETREE", "FDTOVERLAYS", "DEVICETREE-OVERLAY", "FDTDIR", "DEVICETREEDIR":
			for _, name := range f[1:] {
				in(name)
			}
		case "INITRD":
			e.Initrds = nil
			for _, name := range strings.SplitN(f[1], ",", maxInitrds+1) {
				e.Initrds = append(e.Initrds, in(name))
			}
		case "APPEND":
			for _, w := range f[1:] {
				if names, ok := strings.CutPrefix(w, "initrd="); ok {
					for _, name := range strings.SplitN(names, ",", maxInitrds+1) {
						e.Initrds = append(e.Initrds, in(name))
					}
				} else if len(e.Options) <= maxCommandLine {
					e.Options += " " + w
				}
			}
		}
	}
	return chosenOf(all, chosen, wanted)
}

// chosenOf gives the entries that have a kernel, and marks the default of them.
func chosenOf(all []Entry, wanted ...string) (kernels []Entry) {
	for _, e := range all {
		if e.Kernel != "" {
			kernels = append(kernels, e)
		}
	}
	for _, w := range wanted {
		for i := range kernels {
			if kernels[i].ID == w {
				kernels[i].Default = true
				return kernels
			}
		}
	}
	if len(kernels) > 0 {
		kernels[0].Default = true
	}
	return kernels
}
