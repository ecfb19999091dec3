package mutate

import (
	"os"

	"github.com/imgmut/imgmut/mutate/fault"
)

// openImage opens a raw image file that the user named. It does not wait for
// the other end of a pipe to find that it is none.
func openImage(file string) (*os.File, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fault.New(fault.Image, "give the path of a raw disk image", "not a regular file")
	}
	return os.Open(file)
}
