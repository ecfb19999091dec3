package refs

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/imgmut/imgmut/mutate/bootfile"
)

// Search is what is looked for in the files that are read at boot.
type Search struct {
	// Partitions are UUIDs that no partition has any more, as PARTUUID= has them,
	// and Filesystems those that no filesystem has, as UUID= does.
	Partitions, Filesystems []string
	// Labels are those that no filesystem has any more.
	Labels []string
	// Here are the UUIDs that the image's filesystems have. One of them may equal one
	// that is gone, and unless a file says that it means that one, it is theirs.
	Here []string
}

// Report is what a search found.
type Report struct {
	Files  int   // that were looked into
	Bytes  int64 // of them, unpacked too
	Found  []Leftover
	Unread []Unread
	Clean  Known // files in which nothing was found, for a later look for the same
}

// Leftover is a file that names what is gone.
type Leftover struct {
	File   string // below the root of its volume
	Inside string // the file inside that one, as of an initrd
	ID     string
	Tag    string // PARTUUID, UUID or LABEL
}

// Unread is a file that could not be looked into.
type Unread struct{ File, Inside, Why string }

const (
	maxScanned = 16 << 30 // bytes of one volume, unpacked too
	maxTold    = 64       // leftovers, and files that were not read
	maxClean   = 1 << 14  // files to remember
)

// Scan looks for IDs in all files that are read at boot and in their names,
// inside of initrds and the like too. In each file it finds one. It is an error of
// class [fault.Image] if there is too much to look into.
func (f Files) Scan(ctx context.Context, s Search) (Report, error) {
	ids := union(s.Partitions, s.Filesystems)
	if len(ids)+len(s.Labels) == 0 {
		return Report{}, nil
	}
	w, err := f.atBoot(ctx)
	if err != nil {
		return Report{}, err
	}
	c := &scan{Search: s, Files: f, finder: newFinder(ids, s.Labels...), budget: bootfile.NewBudget(maxScanned)}
	c.report.Clean = Known{}
	c.partitions, c.filesystems, c.here = setOf(s.Partitions), setOf(s.Filesystems), setOf(s.Here)
	for _, name := range w.names {
		c.name(name)
	}
	for _, u := range w.lost {
		c.unread(u.File, u.Inside, u.Why)
	}
	if err := c.all(ctx, w.found); err != nil {
		return Report{}, err
	}
	r := &c.report
	r.Bytes = maxScanned - c.budget.Left()
	slices.SortFunc(r.Found, func(a, b Leftover) int { return cmp.Compare(a.File, b.File) })
	slices.SortFunc(r.Unread, func(a, b Unread) int { return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Inside, b.Inside)) })
	return *r, nil
}

type scan struct {
	Search
	Files
	*finder
	partitions, filesystems, here map[string]bool // in small letters
	budget                        *bootfile.Budget
	mu                            sync.Mutex
	report                        Report
}

func setOf(ids []string) map[string]bool {
	set := map[string]bool{}
	for _, id := range ids {
		set[strings.ToLower(id)] = true
	}
	return set
}

// union has each of some IDs once, in small letters.
func union(lists ...[]string) []string {
	return slices.Sorted(maps.Keys(setOf(slices.Concat(lists...))))
}

// leftover says whether a match is what is looked for.
func (c *scan) leftover(m match) bool {
	id := c.ids[m.id]
	switch sort := m.sort(); {
	case sort == isALabel:
		return true
	case sort == ofPartition, c.partitions[id] && !c.filesystems[id] && !c.here[id]:
		return c.partitions[id]
	case sort == ofFilesystem:
		return c.filesystems[id]
	case sort == ofOther:
		return false
	}
	// A FAT volume's serial, of which nothing is said, may be a date.
	return !c.here[id] && (c.partitions[id] || rare(id))
}

// found tells of a leftover.
func (c *scan) found(file, inside string, m match) {
	id := c.ids[m.id]
	tag := "PARTUUID"
	switch sort := m.sort(); {
	case sort == isALabel:
		tag = "LABEL"
	case !c.partitions[id], sort == ofFilesystem && c.filesystems[id]:
		tag = "UUID"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.report.Found) < maxTold {
		c.report.Found = append(c.report.Found, Leftover{file, inside, id, tag})
	}
}

// all looks into files, as many at once as there are processors. A FAT volume is
// read by a library that is for one reader at a time.
func (c *scan) all(ctx context.Context, files []walked) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	workers := runtime.GOMAXPROCS(0)
	if c.FAT {
		workers = 1
	}
	slices.SortStableFunc(files, func(a, b walked) int { return cmp.Compare(b.info.Size(), a.info.Size()) }) // no large one last
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			one := c.finder.again()
			for n := next.Add(1) - 1; n < int64(len(files)); n = next.Add(1) - 1 {
				if err := c.file(ctx, one, files[n]); err != nil {
					stop(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// errFound ends the look into a file.
var errFound = errors.New("found")

// file looks into one file.
func (c *scan) file(ctx context.Context, look *finder, w walked) error {
	state, told := c.state(w)
	if told && c.Clean[state] {
		return nil
	}
	in, err := c.FS.Open(w.name)
	if err != nil {
		c.unread(w.name, "", err.Error())
		return nil
	}
	defer in.Close()
	c.mu.Lock()
	c.report.Files++
	c.mu.Unlock()
	clean := true
	err = bootfile.Walk(ctx, in, c.budget, bootfile.Visitor{
		Content: func(inside string, r io.Reader) error { return c.content(look, w.name, inside, r) },
		Unread: func(inside, why string) {
			clean = false
			c.unread(w.name, inside, why)
		},
	})
	switch {
	case errors.Is(err, errFound):
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errTooOften):
		return tooMuch("%s is full of what is like the UUIDs that are looked for", w.name)
	case errors.Is(err, bootfile.ErrTooLarge):
		return tooMuch("the files that are read at boot, up to %s, have more than %d GiB, unpacked", w.name, maxScanned>>30)
	case err != nil:
		c.unread(w.name, "", err.Error())
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if clean && told && len(c.report.Clean) < maxClean {
		c.report.Clean[state] = true
	}
	return nil
}

// content looks into a stretch of bytes, and at the name of the file inside that
// it is.
func (c *scan) content(look *finder, file, inside string, r io.Reader) error {
	if m, ok := c.leftoverIn(look, inside); ok {
		c.found(file, inside, m)
		return errFound
	}
	var left *match
	err := look.find(r, func(m match) bool {
		if c.leftover(m) {
			left = &m
		}
		return left == nil
	})
	if left != nil {
		c.found(file, inside, *left)
		return errFound
	}
	return err
}

// name looks at the name of a file, as that of a unit for a device.
func (c *scan) name(name string) {
	if m, ok := c.leftoverIn(c.finder, name); ok {
		file, target, _ := strings.Cut(name, "\x00")
		c.found(file, target, m)
	}
}

func (c *scan) leftoverIn(look *finder, text string) (found match, ok bool) {
	if len(text) < gram {
		return found, false
	}
	look.look([]byte(text), 0, true, func(m match) bool {
		ok = c.leftover(m)
		found = m
		return !ok
	})
	return found, ok
}

func (c *scan) unread(file, inside, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.report.Unread) < maxTold {
		c.report.Unread = append(c.report.Unread, Unread{file, inside, why})
	}
}
