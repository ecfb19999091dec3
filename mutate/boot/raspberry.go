package boot

import (
	"fmt"
	"strings"
)

// kernelsOfPi are the kernels that the firmware looks for where its configuration
// names none, the initrd that it takes with each, if it may, and the models that
// prefer it (www.raspberrypi.com/documentation/computers/config_txt.html).
var kernelsOfPi = []struct{ kernel, initrd, model string }{
	{"kernel8.img", "initramfs8", "64 bits"}, {"kernel_2712.img", "initramfs_2712", "Raspberry Pi 5"},
	{"kernel7l.img", "initramfs7l", "Raspberry Pi 4"}, {"kernel7.img", "initramfs7", "Raspberry Pi 2 and 3"},
	{"kernel.img", "initramfs", "Raspberry Pi 1 and Zero"},
}

// piConfig is what config.txt says of kernels.
type piConfig struct {
	kernels []piKernel
	initrds []string
	auto    bool
	cmdline string
	prefix  string
}

type piKernel struct {
	name, filter string
	line         int
}

// readRaspberry takes what the firmware of a Raspberry Pi starts from the volume
// that has its files.
func (c *chain) readRaspberry() {
	for _, p := range c.places {
		if !p.has("config.txt") || !p.has("bootcode.bin") && !p.has("start4.elf") && !p.has("start.elf") && !p.has("cmdline.txt") {
			continue
		}
		f := parsePi(c.read(p, "config.txt"))
		in := func(names ...string) (all []string) {
			for _, name := range names {
				all = append(all, p.name(f.prefix+name))
			}
			return all
		}
		e := Entry{Loader: "raspberry", OptionsFile: p.name(f.prefix + f.cmdline), Initrds: in(f.initrds...)}
		e.Options = firstLine(c.read(p, f.prefix+f.cmdline))
		byDefault := len(f.kernels) - 1
		for i, k := range f.kernels {
			if k.filter == "" {
				byDefault = i
			}
		}
		for i, k := range f.kernels {
			e.File, e.Title, e.Kernel = fmt.Sprintf("%s:%d", p.name("config.txt"), k.line), k.filter, in(k.name)[0]
			e.Default, e.ID = i == byDefault, k.name
			c.add(e)
		}
		found := len(f.kernels) > 0
		for _, k := range kernelsOfPi {
			if len(f.kernels) > 0 || !p.has(f.prefix+k.kernel) {
				continue
			}
			e.File, e.ID, e.Title, e.Kernel = p.name("config.txt"), k.kernel, k.model, in(k.kernel)[0]
			if e.Initrds = in(f.initrds...); f.auto && p.has(f.prefix+k.initrd) {
				e.Initrds = in(k.initrd)
			}
			e.Default, found = !found, true
			c.add(e)
		}
	}
}

// parsePi reads config.txt. Which of its filters hold is a matter of the machine.
func parsePi(text string) piConfig {
	f := piConfig{cmdline: "cmdline.txt"}
	filter := ""
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			filter = strings.Trim(line, "[]")
			if filter == "all" {
				filter = ""
			}
		}
		if names, ok := strings.CutPrefix(line, "initramfs "); ok { // it has no =
			fields := strings.Fields(names)
			f.initrds = nil
			if len(fields) > 0 {
				f.initrds = strings.SplitN(fields[0], ",", maxInitrds+1)
			}
		}
		key, value, _ := strings.Cut(line, "=")
		switch value = strings.TrimSpace(value); strings.TrimSpace(key) {
		case "kernel":
			if len(f.kernels) < maxEntries && value != "" {
				f.kernels = append(f.kernels, piKernel{value, filter, number})
			}
		case "auto_initramfs":
			f.auto = value == "1"
		case "cmdline":
			f.cmdline = value
		case "os_prefix":
			f.prefix = value
		}
	}
	return f
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
