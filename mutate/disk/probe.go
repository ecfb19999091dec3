package disk

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/mount"
	"github.com/imgmut/imgmut/mutate/tool"
)

// containers are things in a partition that no filesystem is read from, by
// blkid's name for them.
var containers = map[string]string{
	"crypto_LUKS":       "an encrypted volume (LUKS)",
	"LVM2_member":       "an LVM volume",
	"linux_raid_member": "a RAID member",
	"DM_verity_hash":    "a verity tree: the image is sealed against change",
	"zfs_member":        "ZFS",
	"BitLocker":         "an encrypted volume (BitLocker)",
	"ntfs":              "NTFS",
}

// unusable says what a volume holds that could hold an operating system, but
// not one that imgmut can work on. It is "" for all else.
func unusable(fs string) string {
	switch {
	case containers[fs] != "":
		return containers[fs]
	case fs == "", fs == "swap", mount.Writable(fs):
		return ""
	}
	return "the filesystem " + fs
}

// probe asks blkid what is in each volume.
func (l *Layout) probe(ctx context.Context, f *os.File) error {
	volumes, err := tool.Each(l.Volumes, func(v Volume) (Volume, error) {
		err := v.probe(ctx, f)
		return v, err
	})
	if err == nil {
		l.Volumes = volumes
	}
	return err
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
