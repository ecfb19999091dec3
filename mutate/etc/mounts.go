package etc

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"slices"
)

// Mounts lists what the system of a tree mounts, or can mount, at its start: by
// its fstab, its mount units and the kernel's command line, with what systemd makes of
// them. It is sorted by
// Place, of which each comes once: a unit in /etc stands before a line of fstab, and
// that before a unit in /usr. What is masked, or has a fault, is told as such. What is
// mounted below /proc, /sys, /dev and /run, which are fresh at each start, is none.
//
// A mount starts that is pulled in, by whatever way, by default.target, or by
// sysinit.target, basic.target, local-fs.target or remote-fs.target: that the last is
// enabled is left to the first start. Conditions count only if they
// ask for paths of the tree. What other generators (systemd-gpt-auto-generator, zfs), the
// initrd and programs mount is not looked at, and
// neither is what is started later, as by a timer or the first connection to a socket.
// In a tree without systemd, such as that of Alpine, each line of fstab starts that is
// not noauto: mount(8) with -a is what other systems call.
//
// The tree is that of a started system: a /usr that is a volume of its own has to
// be in it. The error is [ErrTooMuch], or that of a file that cannot be read.
func Mounts(tree fs.FS, kernel string) ([]Mount, error) {
	f := newFiles(tree)
	var k kernelLine
	if kernel != "" {
		k = parseKernelLine(kernel, SystemdVersion(tree))
	}
	made, err := generate(f, k)
	if err != nil {
		return nil, err
	}
	p, err := openUnitPath(f, map[int]*fromFstab{earlyRank: k.early(), generatorRank: made, lateRank: k.late()})
	if err != nil {
		return nil, err
	}
	s := newSystem(f, p)
	if n := len(s.mounts); n > maxMounts {
		return nil, fmt.Errorf("%d mounts: %w", n, ErrTooMuch)
	}
	if err := s.boot(); err != nil {
		return nil, err
	}
	local, err := s.load("local-fs.target")
	if err != nil {
		return nil, err
	}
	if local == nil && kernel != "" { // to which systemd alone listens
		return Mounts(tree, "")
	}
	mounts, err := s.list()
	if local == nil {
		for n, m := range mounts {
			mounts[n].Starts, mounts[n].Needed = !m.Masked && !m.is("noauto", "auto"), !m.Masked && !m.nofail()
		}
	}
	return mounts, err
}

// maxMounts is how many mounts a system may have: each is compared with all others.
const maxMounts = 1000

// list gives the mounts, started or not. systemd mounts nothing on a link, though a
// line of fstab may name one: that was followed.
func (s *system) list() ([]Mount, error) {
	var mounts []Mount
	for place, name := range s.mounts {
		u, err := s.load(name)
		if err != nil {
			return nil, err
		}
		switch {
		case isFresh(place):
			continue
		case u == nil:
			mounts = append(mounts, Mount{Place: place, From: "the unit " + name, Masked: true})
			continue
		}
		m, _ := u.mount()
		real, err := s.files.follow(place)
		if err := skipAbsent(err); err != nil {
			return nil, err
		}
		if path.Join("/", real) == m.Place && s.conditionsHold(u) {
			j := s.job(u)
			m.Starts, m.Needed = j.starts, j.needed
		}
		mounts = append(mounts, m)
	}
	slices.SortFunc(mounts, func(a, b Mount) int { return cmp.Compare(a.Place, b.Place) })
	return mounts, nil
}
