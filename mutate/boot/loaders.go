package boot

import (
	"errors"
	"maps"
	"slices"
)

// Loaders is what the boot loaders of an image say. It is read once, and then only
// looked at.
type Loaders struct{ chain *chain }

// Read reads the boot loaders that the trees of an image have.
func Read(places []Place) *Loaders { return &Loaders{readChain(places)} }

// Entries lists the ways to start the image, what starts by default first. The
// error says what was too much to read; the entries are then not all.
func (l *Loaders) Entries() ([]Entry, error) {
	return l.chain.entries, errors.Join(l.chain.errs...)
}

// Files lists the files that boot loaders read, wherever they lie and whether they are
// there or not, as the booted system names them: configurations, and what those name,
// which are kernels, initrds, microcode, device trees (of some a directory) and programs
// of firmware.
func (l *Loaders) Files() []string { return slices.Sorted(maps.Keys(l.chain.named)) }

// Entries is [Loaders.Entries] for whoever has no other question.
func Entries(places []Place) ([]Entry, error) { return Read(places).Entries() }
