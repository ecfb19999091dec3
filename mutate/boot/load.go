package boot

import (
	"io"
	"io/fs"
	"strings"

	"github.com/imgmut/imgmut/mutate/bootfile"
)

// unloadable says what keeps a file from being loaded, "" if nothing does: it is not
// there, or it is not what it should be, as not says by how it begins.
func (j *judge) unloadable(name string, not func(head []byte, size int64) string) string {
	p, file, ok := j.find(name)
	if !ok {
		return gone
	}
	f, err := p.FS.Open(file)
	if err != nil {
		return "cannot be read"
	}
	defer f.Close()
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		return "is no file"
	}
	if err == nil && fi.Size() == 0 {
		return "is empty"
	}
	head := make([]byte, bootfile.HeadSize)
	n, readErr := io.ReadFull(f, head) // a short one is what there is
	if err != nil || n == 0 && readErr != nil {
		return "cannot be read"
	}
	return not(head[:n], fi.Size())
}

// anything is for files of which it does not matter what they are.
func anything([]byte, int64) string { return "" }

// noInitrd is for the initrds of an entry. The modules of a hypervisor may be anything.
func (e Entry) noInitrd(head []byte, _ int64) string {
	if e.hypervisor {
		return ""
	}
	return bootfile.NoInitrd(head)
}

// inits are what the kernel, or the initrd, starts of the root if nothing else is asked
// for (kernel_init in the kernel's source; systemctl(1), switch-root). The kernel takes a
// shell too, which all systems have, and a machine that is nothing but a shell is none
// that a recipe asks for.
var inits = []string{"/sbin/init", "/etc/init", "/bin/init", "/usr/lib/systemd/systemd", "/lib/systemd/systemd"}

// init judges whether the root that an entry starts has a first program.
func (j *judge) init(e Entry) {
	if asked := parameter(e.Options, "init"); asked != "" {
		if !j.isProgram(asked) {
			j.wrong(e, "install it, or leave out init=", "%s starts with init=%s, which is no program of this image", e.File, asked)
		}
		return
	}
	for _, name := range inits {
		if j.isProgram(name) {
			return
		}
	}
	if _, _, ok := j.find("/"); !ok {
		return // its tree is not here
	}
	j.wrong(e, "install systemd-sysv, or another init", "the root has no init: no program is at %s", strings.Join(inits, ", "))
}

func (j *judge) isProgram(name string) bool {
	p, file, ok := j.find(name)
	if !ok {
		return false
	}
	fi, err := fs.Stat(p.FS, file)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 && fi.Size() > 0
}
