package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
	"github.com/imgmut/imgmut/mutate/record"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/tool"
)

var filesystemsCheck = Check{Name: "filesystems", Version: 2, Run: filesystems}

// filesystems has each filesystem judged by its own checker.
func filesystems(ctx context.Context, r Request) ([]record.Check, error) {
	volumes := slices.DeleteFunc(r.Image.Volumes(), func(v disk.Volume) bool { return checkers[v.FS].program == "" })
	return tool.Each(volumes, func(v disk.Volume) (record.Check, error) { return checkers[v.FS].check(ctx, r, v) })
}

// checker is the read-only checker of one filesystem.
type checker struct {
	program string
	args    []string // the file is appended; any exit status but 0 is bad news
}

// checkers by blkid's name of the filesystem.
var checkers = map[string]checker{
	// With -n e2fsck(8) never repairs, so 1 cannot happen and 4 is what it found.
	"ext2": {"e2fsck", []string{"-fn"}},
	"ext3": {"e2fsck", []string{"-fn"}},
	"ext4": {"e2fsck", []string{"-fn"}},
	"xfs":  {"xfs_repair", []string{"-n", "-f"}},
	// Read-only is the default, but saying so is cheap.
	"btrfs": {"btrfs", []string{"check", "--readonly"}},
	"vfat":  {"fsck.vfat", []string{"-n"}},
}

// check judges a volume. What the checker says of the base's in the same words was
// there before, so it is no fault of the image.
func (c checker) check(ctx context.Context, r Request, v disk.Volume) (record.Check, error) {
	started, result := time.Now(), record.Check{Name: fmt.Sprintf("%s: %s", v, v.FS)}
	said, err := c.run(ctx, r.Scratch, r.Image.File, v)
	if err != nil {
		return result, err
	}
	var before []string
	if len(said) > 0 && r.Base.holds(v) {
		if before, err = c.run(ctx, r.Scratch, r.Base.File, v); err != nil {
			return result, err
		}
	}
	result.Took = time.Since(started)
	isNew := func(line string) bool { return !slices.Contains(before, line) }
	detail := strings.Join(said[:min(len(said), maxFindings)], "; ")
	note := c.program + " says: " + detail + " (as in the base)"
	switch known := r.Base != nil && r.Base.File == nil && slices.Contains(r.Base.Told, note); {
	case len(said) == 0:
		result.OK = true
	case known || !slices.ContainsFunc(said, isNew):
		result.OK, result.Notes = true, []string{note}
	default:
		result.Detail = detail
	}
	return result, nil
}

// holds says whether the base is there, and has a place where the volume is.
func (b *Base) holds(v disk.Volume) bool {
	if b == nil || b.File == nil {
		return false
	}
	fi, err := b.File.Stat()
	return err == nil && v.Offset+v.Size <= fi.Size()
}

// run runs the checker on a carve-out of the volume, and gives what it found, nothing
// if it is content.
func (c checker) run(ctx context.Context, scratch string, image *os.File, v disk.Volume) ([]string, error) {
	file := filepath.Join(scratch, fmt.Sprintf("volume-%d", v.Slot))
	if err := carve(ctx, file, image, v); err != nil {
		return nil, fmt.Errorf("check %s: %w", v, err)
	}
	defer os.Remove(file)
	_, err := tool.Run(ctx, tool.Call{
		Program: c.program, Args: append(slices.Clone(c.args), file), What: fmt.Sprintf("check %s (%s)", v, v.FS),
	})
	var exit *tool.ExitError
	if !errors.As(err, &exit) || exit.Status < 0 {
		return nil, err
	}
	found := findings(strings.ReplaceAll(exit.Report, file, v.String()))
	if len(found) == 0 {
		found = []string{exit.Error()}
	}
	return found, nil
}

// carve makes a file of the volume's bytes. They are shared with the image but
// where it lies on another filesystem, or the volume begins between two blocks of
// the store's.
func carve(ctx context.Context, file string, image *os.File, v disk.Volume) (err error) {
	out, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := out.Truncate(v.Size); err != nil {
		return err
	}
	return reflink.Share(ctx, out, 0, image, reflink.Range{Offset: v.Offset, Length: v.Size})
}

const (
	// maxFinding is how much of a line of a checker's report is kept, in bytes: a
	// damaged filesystem has names of any length.
	maxFinding = 300
	// maxFindings is how many of the lines are told.
	maxFindings = 6
	// maxLines is how many are looked at.
	maxLines = 1000
)

// findings are the lines of a checker's report, without those that only show its
// progress, or how much there is.
func findings(report string) []string {
	var found []string
	if n := strings.Count(report, "\n"); n > maxLines {
		found = append(found, fmt.Sprintf("%d lines, the last of them:", n))
	}
	for _, line := range lastLines(report, maxLines) {
		line = strings.TrimSpace(line)
		if line != "" && !progressLine().MatchString(line) && !summaryLine().MatchString(line) {
			found = append(found, line[:min(len(line), maxFinding)])
		}
	}
	return found
}

// progressLine is how e2fsck, xfs_repair, btrfs and fsck.vfat say how far they
// are, what they are called, and what they would do about it.
var progressLine = lazyregexp.New(`^(Pass \d|Phase \d|- |\[\d+/\d+\]|e2fsck \d|fsck\.fat \d|` +
	`Opening filesystem|Checking filesystem|UUID: |Automatically |Not automatically |Leaving filesystem unchanged)`)

// summaryLine is how they say how much there is, which is no finding.
var summaryLine = lazyregexp.New(`: \d+/\d+ files \(.*\), \d+/\d+ blocks$|: \d+ files, \d+/\d+ clusters$|` +
	`^(found|total|btree|file data|referenced) .*\d`)

func lastLines(s string, n int) []string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	return lines[max(0, len(lines)-n):]
}
