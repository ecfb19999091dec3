package disk

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/mount"
)

// What udev makes of a disk, for steps to which it is lent: links to nodes, and a database.

// nodes are the slots that have a device node, 0 of the whole disk first.
func (l *Layout) nodes() []int {
	all := []int{0}
	for _, v := range l.Volumes {
		if v.Slot != 0 && !slices.Contains(extended, v.Type) {
			all = append(all, v.Slot)
		}
	}
	return all
}

// devLinks are the links below /dev by which programs find volumes: those of udev, and
// for whoever asks the kernel the names and numbers that it has for them, of the disks
// that are mounted and lent.
func (l *Layout) devLinks(disks ...*mount.Disk) (map[string]string, error) {
	links := map[string]string{}
	for _, slot := range l.nodes() {
		node := mount.Partition{Slot: slot}.Name()
		for _, d := range disks {
			major, minor, err := d.Number(slot)
			if err != nil {
				return nil, err
			}
			links[fmt.Sprintf("block/%d:%d", major, minor)] = "../" + node
			links[d.KernelName(slot)] = node
		}
		v, _ := l.Slot(slot)
		for dir, name := range map[string]string{
			"by-uuid": v.UUID, "by-label": v.Label, "by-partuuid": strings.ToLower(v.PartUUID), "by-partlabel": v.PartLabel,
		} {
			if at := "disk/" + dir + "/" + udevName(name); isName(udevName(name)) && links[at] == "" {
				links[at] = "../../" + node
			}
		}
	}
	return links, nil
}

// isName says whether a file can have that name.
func isName(s string) bool { return s != "" && s != "." && s != ".." && len(s) <= unix.NAME_MAX }

// udevName encodes a label as udev does for the name of a link (encode_devnode_name).
func udevName(s string) string {
	var b strings.Builder
	for _, r := range []byte(s) {
		switch {
		case r >= '0' && r <= '9', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= 0x80, strings.IndexByte("#+-.:=@_", r) >= 0:
			b.WriteByte(r)
		default:
			fmt.Fprintf(&b, `\x%02x`, r)
		}
	}
	return b.String()
}

// Files are what udev's database says of the volumes (/run/udev/data), by path.
func (l *Lent) Files() (map[string]string, error) {
	files := map[string]string{}
	i := l.image
	i.mu.Lock()
	disks := []*mount.Disk{i.disk, l.disk}
	i.mu.Unlock()
	for _, d := range disks {
		for _, slot := range i.Layout.nodes() {
			major, minor, err := d.Number(slot)
			if err != nil {
				return nil, err
			}
			files[fmt.Sprintf("/run/udev/data/b%d:%d", major, minor)] = i.Layout.udevData(slot)
		}
	}
	return files, nil
}

// udevData is what udev knows of a volume, one property a line (builtin blkid).
func (l *Layout) udevData(slot int) string {
	var b strings.Builder
	property := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "E:%s=%s\n", key, udevName(value))
		}
	}
	table := map[TableKind]string{GPT: "gpt", MBR: "dos"}[l.Table]
	property("ID_PART_TABLE_TYPE", table)
	v, ok := l.Slot(slot)
	if !ok {
		return b.String()
	}
	property("ID_FS_TYPE", v.FS)
	property("ID_FS_UUID", v.UUID)
	property("ID_FS_UUID_ENC", v.UUID)
	property("ID_FS_LABEL", v.Label)
	property("ID_FS_LABEL_ENC", v.Label)
	if v.FS != "" && v.FS != "swap" {
		property("ID_FS_USAGE", "filesystem")
	}
	if slot != 0 {
		property("ID_PART_ENTRY_SCHEME", table)
		property("ID_PART_ENTRY_NUMBER", fmt.Sprint(slot))
		property("ID_PART_ENTRY_TYPE", strings.ToLower(v.Type))
		property("ID_PART_ENTRY_UUID", strings.ToLower(v.PartUUID))
		property("ID_PART_ENTRY_NAME", v.PartLabel)
		property("ID_PART_ENTRY_OFFSET", fmt.Sprint(v.Offset/512))
		property("ID_PART_ENTRY_SIZE", fmt.Sprint(v.Size/512))
	}
	return b.String()
}
