package disk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
)

// superblock is that of an ext2, ext3 or ext4, which says among other things how
// the kernel is to mount it (Documentation/filesystems/ext4/super.rst).
type superblock [1024]byte

// Where things are in a superblock, and what they can be; little-endian.
const (
	extStart    = 1024  // of the superblock in the volume
	extMagic    = 0x38  // 0xEF53
	extErrors   = 0x3C  // what to do about damage: 1 continue, 2 remount read-only, 3 panic
	extROCompat = 0x64  // features; 0x400 says that there is a checksum
	extOptions  = 0x200 // mount options, 64 bytes of text
	extChecksum = 0x3FC // of all before it
)

// Disarm has the filesystems in f, a fork of the image, no longer ask the kernel
// to panic at damage in them, nor for mount options of their own, which can ask
// the same. imgmut overrules both where it mounts itself, but systemd-nspawn and
// machined do as the superblock says, and whoever made the image says where it is
// damaged. Nothing in f may be mounted. [Layout.Rearm] is the way back.
//
// The kernel reads this of the superblock before it replays the journal, which
// may hold another superblock: so Disarm is for every mount, not once for a fork.
func (l *Layout) Disarm(f *os.File) error {
	for _, v := range l.Volumes {
		s, err := v.superblock(f)
		if err != nil {
			return err
		}
		if s == nil || !s.armed() {
			continue
		}
		if s.errors() == 3 {
			binary.LittleEndian.PutUint16(s[extErrors:], 2)
		}
		clear(s.options())
		if err := s.write(f, v); err != nil {
			return err
		}
	}
	return nil
}

// Rearm puts back what [Layout.Disarm] took out of f, as it is in base, of which
// f is a descendant.
func (l *Layout) Rearm(f, base *os.File) error {
	for _, v := range l.Volumes {
		was, err := v.superblock(base)
		if err != nil {
			return err
		}
		if was == nil || !was.armed() {
			continue
		}
		s, err := v.superblock(f)
		if err != nil {
			return err
		}
		if s == nil {
			return fmt.Errorf("%s is no longer %s", v, v.FS)
		}
		copy(s[extErrors:extErrors+2], was[extErrors:])
		copy(s.options(), was.options())
		if err := s.write(f, v); err != nil {
			return err
		}
	}
	return nil
}

// superblock reads that of a volume, nil if it has none of this kind.
func (v Volume) superblock(f *os.File) (*superblock, error) {
	if !slices.Contains([]string{"ext2", "ext3", "ext4"}, v.FS) {
		return nil, nil
	}
	s := new(superblock)
	if _, err := f.ReadAt(s[:], v.Offset+extStart); err != nil {
		return nil, fmt.Errorf("read the superblock of %s: %w", v, err)
	}
	if binary.LittleEndian.Uint16(s[extMagic:]) != 0xEF53 {
		return nil, nil
	}
	return s, nil
}

func (s *superblock) errors() uint16  { return binary.LittleEndian.Uint16(s[extErrors:]) }
func (s *superblock) options() []byte { return s[extOptions : extOptions+64] }

func (s *superblock) armed() bool {
	return s.errors() == 3 || len(bytes.Trim(s.options(), "\x00")) > 0
}

// write writes the superblock with a new checksum.
func (s *superblock) write(f *os.File, v Volume) error {
	if binary.LittleEndian.Uint32(s[extROCompat:])&0x400 != 0 {
		// The kernel's crc32c lacks the inversion at the end.
		sum := ^crc32.Checksum(s[:extChecksum], crc32.MakeTable(crc32.Castagnoli))
		binary.LittleEndian.PutUint32(s[extChecksum:], sum)
	}
	_, err := f.WriteAt(s[:], v.Offset+extStart)
	if err != nil {
		err = fmt.Errorf("write the superblock of %s: %w", v, err)
	}
	return err
}
