package disk

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"sync"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/tool"
)

// unusable are things in a partition that no filesystem is read from, by
// blkid's name for them.
var unusable = map[string]string{
	"crypto_LUKS":       "an encrypted volume (LUKS)",
	"LVM2_member":       "an LVM volume",
	"linux_raid_member": "a RAID member",
	"DM_verity_hash":    "a verity tree: the image is sealed against change",
	"zfs_member":        "ZFS",
	"BitLocker":         "an encrypted volume (BitLocker)",
	"ntfs":              "NTFS",
}

// mountable says whether it is worth asking the kernel to mount the volume
// when looking for an operating system.
func (v Volume) mountable() bool {
	switch v.FS {
	case "", "swap", "vfat":
		return false
	}
	return unusable[v.FS] == ""
}

// probe asks blkid what is in each volume, all at once.
func (l *Layout) probe(ctx context.Context, f *os.File) error {
	errs := make([]error, len(l.Volumes))
	var wg sync.WaitGroup
	for i := range l.Volumes {
		wg.Go(func() { errs[i] = l.Volumes[i].probe(ctx, f) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// probe fills in FS, UUID and Label (blkid(8), low-level probing).
func (v *Volume) probe(ctx context.Context, f *os.File) error {
	args := []string{"--probe", "--usages", "filesystem,crypto,raid,other", "--output", "export"}
	if v.Slot != 0 {
		args = append(args, "--offset", strconv.FormatInt(v.Offset, 10), "--size", strconv.FormatInt(v.Size, 10))
	}
	// blkid opens by name, and descriptor 3 has one.
	out, err := tool.Run(ctx, tool.Call{
		Program: "blkid", Args: append(args, "/proc/self/fd/3"), What: "probe " + v.String(), Files: []*os.File{f},
	})
	var exit *tool.ExitError
	switch {
	case errors.As(err, &exit) && exit.Status == 2: // nothing is there
		return nil
	case errors.As(err, &exit) && exit.Status == 8:
		return fault.New(fault.Image, "wipefs shows them; remove those of the old one with wipefs --backup --offset",
			"%s holds the marks of more than one filesystem", v)
	case err != nil:
		return err
	}
	for line := range bytes.Lines(out) {
		key, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte("="))
		switch string(key) {
		case "TYPE":
			v.FS = string(value)
		case "UUID":
			v.UUID = string(value)
		case "LABEL":
			v.Label = unescape(string(value))
		}
	}
	return nil
}

// unescape undoes the backslashes of blkid's export format.
func unescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}

// KernelMounts tells whether this kernel has that filesystem, loading a module
// for it if it can. Asking is opening a context for it (fsopen(2)).
func KernelMounts(fs string) bool {
	c, err := fsopen(fs)
	if err == nil {
		c.Close()
		return true
	}
	// Without fsopen (no rights) the list of those loaded has to do.
	list, err := os.Open("/proc/filesystems")
	if err != nil {
		return false
	}
	defer list.Close()
	for s := bufio.NewScanner(list); s.Scan(); {
		if fields := bytes.Fields(s.Bytes()); len(fields) > 0 && string(fields[len(fields)-1]) == fs {
			return true
		}
	}
	return false
}
