package mutate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/fault"
	"github.com/imgmut/imgmut/mutate/ostree"
	"github.com/imgmut/imgmut/mutate/verify"
)

// Picture is what imgmut sees in an image. Of one that it refuses it is as much as can
// be seen.
type Picture struct {
	File   string       `json:"file"`
	Size   int64        `json:"size"` // bytes
	Layout *disk.Layout `json:"layout,omitempty"`
	// CommandLine is what the kernel gets when the image starts by itself.
	CommandLine string  `json:"commandLine,omitempty"`
	Boot        []Start `json:"boot"`
	// Unreplayed are the slots of volumes whose journal holds changes: what is shown of
	// their files is as it was before those.
	Unreplayed []int `json:"unreplayed,omitempty"`
	// Enlarged is what to know of a disk that was enlarged after it was partitioned.
	Enlarged string           `json:"enlarged,omitempty"`
	Hidden   []disk.Mounted   `json:"hidden,omitempty"` // what steps do not see, and what is below it is not seen at the start
	Findings []verify.Finding `json:"findings,omitempty"`
	Refused  *Refusal         `json:"refused,omitempty"`
}

// Start is a way to start an image that a boot loader of it has.
type Start struct {
	Loader  string   `json:"loader"`
	File    string   `json:"file"` // that says so, and the line
	ID      string   `json:"id,omitempty"`
	Title   string   `json:"title,omitempty"`
	Kernel  string   `json:"kernel,omitempty"`
	Initrds []string `json:"initrds,omitempty"`
	Options string   `json:"options,omitempty"`
	Version string   `json:"version,omitempty"` // of the kernel
	Default bool     `json:"default,omitempty"`
	Ostree  string   `json:"ostree,omitempty"` // the deployment that it starts
}

// Refusal is why an image cannot become a base here, whosever fault that is.
type Refusal struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	// Machine says that the fault is this machine's or the user's rights, so that of the
	// image nothing is known.
	Machine bool `json:"machine,omitempty"`
}

// Look looks into the raw image file, of which it changes no byte, as an import does.
// The error is that of the import; there is a picture beside it unless the file cannot
// be read at all. note is told if another imgmut has to be waited for.
func Look(ctx context.Context, file string, note func(string)) (_ *Picture, err error) {
	file, err = filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	f, err := openRaw(file)
	if err != nil {
		return nil, fmt.Errorf("look into %s: %w", file, err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	p := &Picture{File: file, Size: fi.Size(), Boot: []Start{}}
	i, err := disk.Open(ctx, f, note)
	if err == nil {
		err = errors.Join(p.draw(ctx, i), i.Close())
	}
	if err == nil {
		err = checkExtents(ctx, f, maxExtents)
	}
	if err != nil {
		p.Refused = &Refusal{Error: err.Error(), Hint: fault.Mend(err), Machine: fault.Of(err) == fault.Host}
		err = fmt.Errorf("look into %s: %w", file, err)
	}
	return p, err
}

// draw adds what is in the image.
func (p *Picture) draw(ctx context.Context, i *disk.Image) error {
	l, err := lookAt(ctx, i)
	p.Layout = i.Layout
	entries, _ := verify.Entries(i) // what is wrong with them is among the findings
	for _, e := range entries {
		p.Boot = append(p.Boot, Start{
			Loader: e.Loader, File: e.File, ID: e.ID, Title: e.Title, Kernel: e.Kernel, Initrds: e.Initrds,
			Options: e.Options, Version: e.Version, Default: e.Default, Ostree: ostree.Starts(e.Options),
		})
	}
	for _, v := range i.Unreplayed() {
		p.Unreplayed = append(p.Unreplayed, v.Slot)
	}
	if p.Layout.Grown {
		p.Enlarged = enlarged
	}
	p.Hidden = i.Layout.Covers()
	if err != nil {
		return err
	}
	p.CommandLine, p.Findings = i.CommandLine(), l.found
	for _, file := range l.files.InInitrds {
		p.Findings = append(p.Findings, verify.Finding{Check: "closure", What: stuck(file), Note: true})
	}
	return nil
}
