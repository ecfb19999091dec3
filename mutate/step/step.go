// Package step holds the kinds of steps that a recipe may list.
//
// A kind is one file: its options and their documentation, an example, what is
// wrong with them ([Step.Validate]), which files beside the recipe it reads
// ([Inputter]), and what it does to the guest ([Step.Apply]). A new kind is
// that file, a line in [Kinds], and a test.
//
// A step has no undo. When it fails the engine drops the fork, which is easier
// to get right than putting things back. The key of its layer is made of its
// options, its inputs and the layer it starts from, and so nothing else may
// decide what it does: Apply must not look at the clock, the environment or the
// host.
package step

import (
	"archive/tar"
	"context"
	"io/fs"

	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/boot"
	"github.com/imgmut/imgmut/recipes"
)

// Step is one declared change to a guest: the decoded options of a kind. Its
// JSON form, all of it, becomes part of the layer's key.
type Step interface {
	// Validate gives every problem with the options at once. It must not touch
	// the host.
	recipes.Validator
	// Apply makes the change. The guest has the step's environment and network.
	Apply(ctx context.Context, g Guest, src *Source) error
}

// Inputter is a step that reads files from beside the recipe.
type Inputter interface {
	// Inputs names files and directories, relative to the recipe, whose bytes
	// and attributes become part of the key.
	Inputs() []From
}

// Networker is a step that says by itself whether it needs the network. The
// recipe's own word ("network: true" beside the step) comes before it.
type Networker interface{ Network() bool }

// Booter is a step that says whether it works on how the image starts: on kernels,
// initrds, boot loaders and what these have in places of their own. Such a step sees the
// image's disk and its EFI system partition, and may write there.
type Booter interface{ Boot() bool }

// Boots says whether a step works on how the image starts.
func Boots(s Step) bool {
	b, ok := s.(Booter)
	return ok && b.Boot()
}

// PlainOnly is a step that is of no use to a system of ostree, whose kernel, initrd and boot
// loader come with its commits. It is refused there before anything runs.
type PlainOnly interface {
	// PlainOnly says why.
	PlainOnly() string
}

// Targeter is a step that says where in the image it writes. It is refused before it
// runs if that will not be seen when the image has started.
type Targeter interface {
	// Targets are absolute paths, by the option that says each.
	Targets() map[string]string
}

// Guest is a running image as a step sees it.
type Guest interface {
	// Run executes a command and waits for it; [*agent.ExitError] if it ran
	// and did not succeed.
	Run(ctx context.Context, c agent.Command) error
	// Put unpacks a tar stream at the guest's root. Symbolic links of the image
	// are followed inside the image. Parents that are missing are made, 0755
	// root:root; a directory that exists keeps its owner and mode.
	Put(ctx context.Context, write func(*tar.Writer) error) error
	// ReadFile reads a file of the guest, following symbolic links inside it.
	ReadFile(ctx context.Context, name string) ([]byte, error)
	// Stat describes a file of the guest, without following a link.
	Stat(ctx context.Context, name string) (*agent.Stat, error)
	// Files are the image's files as its system sees them, for looking: what the kernel of
	// the machine cannot mount is not among them.
	Files() fs.FS
	// Loaders is what the boot loaders of the image say now.
	Loaders() (*boot.Loaders, error)
}

// Kinds lists every kind, in the order of the documentation.
func Kinds() recipes.Kinds[Step] {
	return recipes.Kinds[Step]{runKind, writeKind, copyKind, packagesKind, systemdKind, kernelArgsKind, initramfsKind, bootloaderKind}
}

// Decoded is a step of a recipe with its options read.
type Decoded = recipes.Decoded[Step]

// Decode finds the kind of a recipe's step and reads its options.
func Decode(s recipes.Step) (Decoded, recipes.Problems) { return Kinds().Decode(s.Kind, s.Options) }

// DecodeAll decodes all steps of a recipe and gives the problems of all.
func DecodeAll(r *recipes.Recipe) ([]Decoded, error) { return recipes.DecodeAll(Kinds(), r.Steps) }
