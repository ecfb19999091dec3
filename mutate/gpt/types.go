package gpt

import (
	"fmt"

	"github.com/google/uuid"
)

// Partition types of the Discoverable Partitions Specification (UAPI.2,
// https://uapi-group.org/specifications/specs/discoverable_partitions_specification/),
// in the order of its table; systemd has them in sd-gpt.h.
var (
	TypeRootX86_64 = uuid.MustParse("4f68bce3-e8cd-4db1-96e7-fbcaf984b709") // /
	TypeRootARM64  = uuid.MustParse("b921b045-1df0-41c3-af44-4c6f280d3fae") // /
	TypeUsrX86_64  = uuid.MustParse("8484680c-9521-48c6-9c11-b0720656f69e") // /usr
	TypeUsrARM64   = uuid.MustParse("b0e01050-ee5f-4390-949a-9101b17104e9") // /usr

	TypeRootVerityX86_64    = uuid.MustParse("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5") // dm-verity hashes of /
	TypeRootVerityARM64     = uuid.MustParse("df3300ce-d69f-4c92-978c-9bfb0f38d820") // dm-verity hashes of /
	TypeUsrVerityX86_64     = uuid.MustParse("77ff5f63-e7b6-4633-acf4-1565b864c0e6") // dm-verity hashes of /usr
	TypeUsrVerityARM64      = uuid.MustParse("6e11a4e7-fbca-4ded-b9e9-e1a512bb664e") // dm-verity hashes of /usr
	TypeRootVeritySigX86_64 = uuid.MustParse("41092b05-9fc8-4523-994f-2def0408b176") // signature of the root hash of /
	TypeRootVeritySigARM64  = uuid.MustParse("6db69de6-29f4-4758-a7a5-962190f00ce3") // signature of the root hash of /
	TypeUsrVeritySigX86_64  = uuid.MustParse("e7bb33fb-06cf-4e81-8273-e543b413e2e2") // signature of the root hash of /usr
	TypeUsrVeritySigARM64   = uuid.MustParse("c23ce4ff-44bd-4b00-b2d4-b41b3419e02a") // signature of the root hash of /usr

	TypeESP          = uuid.MustParse("c12a7328-f81f-11d2-ba4b-00a0c93ec93b") // EFI system partition; UEFI 2.10, table 5.7
	TypeBIOSBoot     = uuid.MustParse("21686148-6449-6e6f-744e-656564454649") // GRUB's image, for BIOS; not in that specification
	TypeXBOOTLDR     = uuid.MustParse("bc13c2ff-59e6-4262-a352-b275fd6f7172") // /boot
	TypeHome         = uuid.MustParse("933ac7e1-2eb4-4f13-b844-0e14e2aef915") // /home
	TypeSrv          = uuid.MustParse("3b8f8425-20e0-4f3b-907f-1a25a76f98e8") // /srv
	TypeVar          = uuid.MustParse("4d21b016-b534-45c2-a9fb-5c16e091fd2d") // /var
	TypeLinuxGeneric = uuid.MustParse("0fc63daf-8483-4772-8e79-3d69d8477de4") // any Linux filesystem
)

// Attribute bits of a partition.
const (
	// AttrNoBlockIO asks firmware to leave the partition alone (UEFI 2.10,
	// table 5.8). It is the only bit that hides an ESP from systemd.
	AttrNoBlockIO uint64 = 1 << 1
	// AttrGrowFS has systemd grow the filesystem to its partition when it mounts it (UAPI.2, Partition Flags).
	AttrGrowFS uint64 = 1 << 59
	// AttrReadOnly has systemd mount it read-only (UAPI.2, Partition Flags).
	AttrReadOnly uint64 = 1 << 60
	// AttrNoAuto keeps systemd from using it unasked (UAPI.2, Partition Flags).
	AttrNoAuto uint64 = 1 << 63
)

// RootType is the type of a root partition for arch, which is the name that
// the Discoverable Partitions Specification has for it: x86-64 or arm64.
func RootType(arch string) (uuid.UUID, error) {
	return byArch(arch, TypeRootX86_64, TypeRootARM64)
}

// UsrType is the type of a /usr partition for arch: x86-64 or arm64.
func UsrType(arch string) (uuid.UUID, error) {
	return byArch(arch, TypeUsrX86_64, TypeUsrARM64)
}

func byArch(arch string, x86, arm uuid.UUID) (uuid.UUID, error) {
	switch arch {
	case "x86-64":
		return x86, nil
	case "arm64":
		return arm, nil
	}
	return uuid.Nil, fmt.Errorf("architecture %q: no partition type is known, want x86-64 or arm64", arch)
}
