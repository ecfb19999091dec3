// Package gpt reads the partition table of a raw disk image and changes a few
// fields of it in place: type GUIDs, unique GUIDs, the disk GUID, attribute
// bits. And it makes a disk larger, with the one partition that is last on it. It
// never adds or removes anything, and makes nothing smaller.
//
// # Words
//
// A GUID partition table (GPT; UEFI 2.10, section 5.3) is stored as two
// copies: the primary, whose header is sector 1, and the backup, whose header
// the primary's "alternate LBA" names and which is the last sector of a disk
// that was not resized since. A copy is a header and an array of entries. The
// header holds a CRC of itself and one of the array. A slot is the number of
// an entry, from 1; it is the number in /dev/sda1 and does not follow the
// order on disk. An LBA counts sectors of 512 or 4096 bytes; the table does
// not say which, the place of the primary header does.
//
// # What is accepted
//
// [Read] checks both copies before it believes either: signature, revision,
// sizes, both CRCs, every address against the length of the file, that the
// copies agree, that headers, arrays and the usable range do not overlap, that
// every used slot lies in the usable range and none overlaps another. Sizes
// are checked before memory is allocated for them, and no sum can overflow.
// Whatever is odd but sound is taken as it is: an array that is not next to
// its header, any number of slots, entries larger than 128 bytes, headers
// larger than 92, reserved bytes that are not zero, a hybrid MBR, a file that
// was grown after the table was made ([Table.Grown]).
//
// All else is a [*DamageError] that names the copy, the fault and, where one
// was seen to work, a mend. Tools differ in which copy of a damaged table they
// follow, so an edit of such a table would mean different things to the
// firmware, the kernel and systemd. This package therefore mends none.
// [ErrNoTable] is kept for files that show no trace of a table: no signature
// in any of the places of a header, and no protective entry in sector 0.
//
// go-diskfs reads each accepted table too, as far as it can (it knows only
// headers of 92 bytes and entries of 128), and both readings must agree. It
// comes second because it trusts the header's sizes, and it does not write
// because it computes anew where arrays belong, which on boards with a moved
// table is where the boot loader is.
//
// # How an edit is written
//
// [Apply] reads and checks the table, checks the edit, and prepares the new
// bytes of both copies in memory: the asked-for fields and four CRCs. Up to
// here the file is untouched. Then it writes the backup, waits until that is
// on stable storage, writes the primary and waits again. At every moment at
// least one copy is whole: the old primary while the backup is written, the
// new backup while the primary is. A copy torn by a crash is found by the next
// Read, by its CRC. An edit that changes nothing writes nothing. At the end
// the table is read again and compared with what was meant.
//
//	f, err := os.OpenFile("fork.raw", os.O_RDWR, 0)
//	...
//	t, err := gpt.Read(f)
//	...
//	root := t.Partitions[1]
//	err = gpt.Apply(f, gpt.Edit{
//		Types: map[int]uuid.UUID{root.Slot: gpt.TypeRootX86_64},
//		Clear: map[int]uint64{root.Slot: gpt.AttrReadOnly},
//	})
//
// # How a disk grows
//
// [Grow] makes the file larger and puts the backup where it belongs, at the new end.
// The order is that of an edit: the new backup is written where the old table has
// nothing, then the primary that names it; at every moment one copy is whole. Only
// then the old backup is blanked, so that nobody finds a header in the middle of a
// partition, and the protective MBR covers the disk. Of a table that was odd all stays
// as it was but the backup's array, which is right before its header afterwards.
// Where only a backup is not at the end ([Table.Grown]), the same without a larger file
// mends it.
//
// # DOS tables
//
// Images without a GPT may have a DOS partition table, the MBR. [ReadMBR]
// knows its primary and logical entries; [SetSignature] changes what a root=
// parameter looks at. There is one copy of it and no checksum, so a single sector
// is the whole edit. [GrowMBR] has a partition reach the new end, if need be with the
// extended one around it: from the outside in, a sector at a time, so that the table is
// sound after each.
//
// # What it does not do
//
// It takes no lock: the caller owns the file, and two concurrent edits of one
// file lose one. It does not look into partitions, and does not know sectors of
// other sizes or block devices.
package gpt
