package fork

import (
	"io/fs"
	"path"
	"strings"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/etc"
	"github.com/imgmut/imgmut/mutate/gpt"
)

// A finished image has the partition types of the Discoverable Partitions
// Specification, by what is in each partition: they are true, and by them
// systemd-nspawn, machined and systemd's generator find it. Nothing else of an entry
// is changed but its GUID.

// discoverable gives the types that are to change, by slot. Those of a system that
// makes its partitions by type itself, own, stay as they are: with another type it
// would make one more at its next start (repart.d(5)).
func discoverable(l *disk.Layout, t *gpt.Table, own map[uuid.UUID]bool) (types map[int]uuid.UUID, keeps bool, err error) {
	types = map[int]uuid.UUID{}
	for _, p := range t.Partitions {
		v, _ := l.Slot(p.Slot)
		want, wanted, err := typeFor(v.Role, l.Arch)
		if err != nil {
			return nil, false, err
		}
		switch {
		case !wanted || p.Type == want:
		case own[p.Type]:
			keeps = true
		default:
			types[p.Slot] = want
		}
	}
	return types, keeps, nil
}

// typeFor is the type GUID by which systemd finds a volume of a role.
func typeFor(r disk.Role, arch string) (t uuid.UUID, ok bool, err error) {
	switch r {
	case disk.Root:
		t, err = gpt.RootType(arch)
	case disk.Usr:
		t, err = gpt.UsrType(arch)
	case disk.Boot:
		t = gpt.TypeXBOOTLDR
	case disk.Home:
		t = gpt.TypeHome
	case disk.Srv:
		t = gpt.TypeSrv
	case disk.Var:
		t = gpt.TypeVar
	default:
		return t, false, nil
	}
	return t, err == nil, err
}

// maxDefinitions is how many files of repart.d are looked at.
const maxDefinitions = 256

// repartTypes are the types of Linux data, of any use, that the system's own
// definitions of partitions have.
func repartTypes(system fs.FS) map[uuid.UUID]bool {
	found := map[uuid.UUID]bool{}
	for _, dir := range []string{"etc/repart.d", "usr/local/lib/repart.d", "usr/lib/repart.d"} {
		names, err := etc.ReadDir(system, dir, maxDefinitions)
		if err != nil {
			continue
		}
		for _, name := range names {
			if !strings.HasSuffix(name, ".conf") {
				continue
			}
			for line := range strings.Lines(etc.Read(system, path.Join(dir, name))) {
				key, value, _ := strings.Cut(line, "=")
				if strings.TrimSpace(key) != "Type" {
					continue
				}
				switch value = strings.TrimSpace(value); {
				case value == "linux-generic":
					found[gpt.TypeLinuxGeneric] = true
				default:
					if id, err := uuid.Parse(value); err == nil {
						found[id] = true
					}
				}
			}
		}
	}
	return found
}
