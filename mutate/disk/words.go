package disk

import (
	"cmp"
	"strings"
)

// TypeWords says in words what the type of a partition is, or gives the type if no
// words are known.
func (v Volume) TypeWords() string { return cmp.Or(typeWords[strings.ToLower(v.Type)], v.Type) }

// typeWords are of the types that images have: those of the Discoverable Partitions
// Specification, and what else is known in util-linux's pt-gpt-partnames.h and
// pt-mbr-partnames.h.
var typeWords = map[string]string{
	"4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "root (x86-64)",
	"b921b045-1df0-41c3-af44-4c6f280d3fae": "root (arm64)",
	"8484680c-9521-48c6-9c11-b0720656f69e": "usr (x86-64)",
	"b0e01050-ee5f-4390-949a-9101b17104e9": "usr (arm64)",
	"2c7357ed-ebd2-46d9-aec1-23d437ec2bf5": "root verity (x86-64)",
	"df3300ce-d69f-4c92-978c-9bfb0f38d820": "root verity (arm64)",
	"77ff5f63-e7b6-4633-acf4-1565b864c0e6": "usr verity (x86-64)",
	"6e11a4e7-fbca-4ded-b9e9-e1a512bb664e": "usr verity (arm64)",
	"41092b05-9fc8-4523-994f-2def0408b176": "root verity signature (x86-64)",
	"6db69de6-29f4-4758-a7a5-962190f00ce3": "root verity signature (arm64)",
	"e7bb33fb-06cf-4e81-8273-e543b413e2e2": "usr verity signature (x86-64)",
	"c23ce4ff-44bd-4b00-b2d4-b41b3419e02a": "usr verity signature (arm64)",
	"c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system",
	"bc13c2ff-59e6-4262-a352-b275fd6f7172": "extended boot loader",
	"933ac7e1-2eb4-4f13-b844-0e14e2aef915": "home",
	"3b8f8425-20e0-4f3b-907f-1a25a76f98e8": "srv",
	"4d21b016-b534-45c2-a9fb-5c16e091fd2d": "var",
	"7ec6f557-3bc5-4aca-b293-16ef5df639d1": "var/tmp",
	"773f91ef-66d4-49b5-bd83-d683bf40ad16": "home of a user",
	"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "swap",
	"0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux data",
	"21686148-6449-6e6f-744e-656564454649": "BIOS boot",
	"9e1a2d38-c612-4316-aa26-8b49521e5a8b": "PReP boot",
	"e6d6d379-f507-44c2-a23c-238f2a3df928": "LVM",
	"a19d880f-05fc-4d3b-a006-743f0f84911e": "RAID",
	"ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Microsoft basic data",
	"e3c9e316-0b5c-4db8-817d-f92df00215ae": "Microsoft reserved",

	"0x05": "extended", "0x0f": "extended", "0x85": "extended",
	"0x06": "FAT16", "0x0e": "FAT16", "0x0b": "FAT32", "0x0c": "FAT32",
	"0x07": "NTFS or exFAT",
	"0x82": "swap",
	"0x83": "Linux data",
	"0x8e": "LVM",
	"0xef": "EFI system",
	"0xfd": "RAID",
}
