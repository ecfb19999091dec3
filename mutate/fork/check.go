package fork

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/gpt"
)

// sealed are the types of partitions whose presence says that another must not
// change: hashes of it, and their signatures.
var sealed = []uuid.UUID{
	gpt.TypeRootVerityX86_64, gpt.TypeRootVerityARM64, gpt.TypeUsrVerityX86_64, gpt.TypeUsrVerityARM64,
	gpt.TypeRootVeritySigX86_64, gpt.TypeRootVeritySigARM64, gpt.TypeUsrVeritySigX86_64, gpt.TypeUsrVeritySigARM64,
}

// CheckSupported refuses an image that can be changed, but whose result would
// not start.
func CheckSupported(l *disk.Layout) error {
	ids := map[string]int{}
	for _, v := range l.Volumes {
		if kind, err := uuid.Parse(v.Type); err == nil && slices.Contains(sealed, kind) || v.FS == "DM_verity_hash" {
			return fault.New(fault.Image, "use the image from before it was sealed, and seal the result",
				"%s holds hashes of another (dm-verity): an image that is sealed so does not start once it is changed", v)
		}
		id := strings.ToLower(v.PartUUID)
		if other, ok := ids[id]; ok && id != "" {
			return fault.New(fault.Image,
				fmt.Sprintf("give one another: sgdisk --partition-guid=%d:R on a copy of the image", v.Slot),
				"partitions %d and %d both have the unique GUID %s, so what names it is ambiguous", other, v.Slot, id)
		}
		ids[id] = v.Slot
	}
	return nil
}
