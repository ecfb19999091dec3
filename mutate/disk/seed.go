package disk

import (
	"errors"
	"io/fs"
	"os"
	"path"

	"github.com/imgmut/imgmut/mutate/etc"
)

// randomSeed is what bootctl makes in an ESP for the machine that it runs on (bootctl(1)).
// All machines that start from the image would have the same: one that a step makes is
// removed when it has ended. One that the image had is left to it.
const randomSeed = "loader/random-seed"

// missingSeeds are those that a step may make where the kernel has mounted a FAT volume, by
// their paths in the guest.
func (l *Lent) missingSeeds() (names []string) {
	for _, m := range l.image.Layout.Mounts {
		seed := path.Join(m.Mountpoint, randomSeed)[1:]
		if v, _ := l.image.Layout.Slot(m.Slot); v.FS == "vfat" && l.image.mountable(m) && !etc.Exists(l.system, seed) {
			names = append(names, seed)
		}
	}
	return names
}

// dropSeeds removes those that were missing when the step began.
func (l *Lent) dropSeeds() error {
	for _, seed := range l.seeds {
		if err := l.system.remove(seed); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// dropSeed removes the one that a step has made in a copy.
func (f *lentFAT) dropSeed(copied *os.Root) error {
	_, had := f.had[randomSeed]
	if fi, err := copied.Lstat(randomSeed); had || err != nil || !fi.Mode().IsRegular() {
		return nil
	}
	return copied.Remove(randomSeed)
}
