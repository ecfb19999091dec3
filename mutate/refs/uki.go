package refs

import (
	"strings"

	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/uki"
)

// ukiFiles are where unified kernel images and their add-ons lie on an EFI
// system partition or a /boot of its own (UAPI.1 Boot Loader Specification,
// type #2; systemd-stub(7)).
var ukiFiles = []string{
	"EFI/*/*.efi", "EFI/Linux/*.efi.extra.d/*.addon.efi", "loader/addons/*.addon.efi",
}

// cmdline is the section of a unified kernel image that is its command line. One
// with several profiles has several.
const cmdline = ".cmdline"

// renameLines gives what is to be written into a unified kernel image so that its
// command lines are what change makes of them.
func renameLines(name string, u uki.File, change func(string) string) (patches []Patch, err error) {
	for _, s := range u.Sections {
		text := s.Text()
		fresh := change(text)
		switch {
		case fresh == text:
			continue
		case u.Signed:
			return nil, fault.New(fault.Image, signedMend,
				"%s is signed, and its kernel command line names a volume by its UUID, which every image has anew", name)
		}
		if len(fresh) > len(text) {
			return nil, fault.New(fault.Image, "make the label of identity.labels no longer than it was",
				"%s has no room for a label in its kernel command line that is longer", name)
		}
		fresh += strings.Repeat(" ", len(text)-len(fresh)) // which the kernel passes over
		patches = append(patches, Patch{File: name, Offset: s.Offset, Bytes: []byte(fresh)})
	}
	return patches, nil
}
