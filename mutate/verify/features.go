package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/mutate/tool"
)

// CheckFeatures refuses an image that has an ext4 filesystem with features which the
// e2fsprogs of this machine do not know: e2fsck does not check such a one, so no image
// made of it could be judged. It is an error of class [fault.Host].
func CheckFeatures(ctx context.Context, i *disk.Image) error {
	volumes := slices.DeleteFunc(i.Volumes(), func(v disk.Volume) bool { return checkers[v.FS].program != "e2fsck" })
	unknown, err := tool.Each(volumes, func(v disk.Volume) ([]string, error) { return unknownFeatures(ctx, i.File, v) })
	if err != nil {
		return err
	}
	for n, features := range unknown {
		if len(features) > 0 {
			return fault.New(fault.Host,
				"use a machine with newer e2fsprogs (e2fsck), or take the features off a copy of the image there: tune2fs -O ^FEATURE",
				"%s (%s) has features that the e2fsprogs of this machine do not know: %s", volumes[n], volumes[n].FS, strings.Join(features, ", "))
		}
	}
	return nil
}

// newFeature is how the library of e2fsprogs names a feature that it has no name for:
// compatible, read-only compatible or incompatible, and the bit.
var newFeature = lazyregexp.New(`\bFEATURE_[CRI]\d+\b`)

// unknownFeatures are those that this machine's e2fsprogs have no name for. A
// filesystem that cannot be read at all is for its checker to tell.
func unknownFeatures(ctx context.Context, image *os.File, v disk.Volume) ([]string, error) {
	out, err := tool.Run(ctx, tool.Call{
		Program: "dumpe2fs", Args: []string{"-h", fmt.Sprintf("/proc/self/fd/3?offset=%d", v.Offset)},
		What: fmt.Sprintf("look at %s (%s)", v, v.FS), Files: []*os.File{image},
	})
	var exit *tool.ExitError
	switch {
	case errors.As(err, &exit) && strings.Contains(exit.Report, "unsupported"):
		return []string{"more than it says"}, nil
	case errors.As(err, &exit):
		return nil, nil
	case err != nil:
		return nil, err
	}
	for line := range strings.Lines(string(out)) {
		if features, ok := strings.CutPrefix(line, "Filesystem features:"); ok {
			return newFeature().FindAllString(features, -1), nil
		}
	}
	return nil, nil
}
