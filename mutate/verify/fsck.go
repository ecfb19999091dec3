package verify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/imgmut/imgmut/mutate/disk"
	"github.com/imgmut/imgmut/mutate/reflink"
	"github.com/imgmut/imgmut/mutate/tool"
)

// checker is the read-only checker of one filesystem.
type checker struct {
	argv    []string // the file is appended; any exit status but 0 is bad news
	Package string   // Debian's, for the hint
}

// checkers by blkid's name of the filesystem.
var checkers = map[string]checker{
	// With -n e2fsck(8) never repairs, so 1 cannot happen and 4 is what it found.
	"ext2": {[]string{"e2fsck", "-fn"}, "e2fsprogs"},
	"ext3": {[]string{"e2fsck", "-fn"}, "e2fsprogs"},
	"ext4": {[]string{"e2fsck", "-fn"}, "e2fsprogs"},
	"xfs":  {[]string{"xfs_repair", "-n", "-f"}, "xfsprogs"},
	// Read-only is the default, but saying so is cheap.
	"btrfs": {[]string{"btrfs", "check", "--readonly"}, "btrfs-progs"},
	"vfat":  {[]string{"fsck.vfat", "-n"}, "dosfstools"},
}

// check runs the checker on a carve-out of the volume.
func (c checker) check(ctx context.Context, r Request, v disk.Volume) (Check, error) {
	result := Check{Name: fmt.Sprintf("%s: %s", v, v.FS)}
	program, err := exec.LookPath(c.argv[0])
	if err != nil {
		return result, tool.Missing(err, c.argv[0], fmt.Sprintf("check %s (%s)", v, v.FS), c.Package)
	}
	file := filepath.Join(r.Scratch, fmt.Sprintf("volume-%d", v.Slot))
	if err := carve(ctx, file, r.File, v); err != nil {
		return result, fmt.Errorf("check %s: %w", v, err)
	}
	defer os.Remove(file)
	cmd := exec.CommandContext(ctx, program, append(c.argv[1:], file)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return result, context.Cause(ctx)
	case err == nil:
		result.OK = true
	case errors.As(err, &exit) && exit.Exited():
		result.Detail = strings.Join(findings(string(out)), "; ")
	case err != nil:
		return result, fmt.Errorf("check %s: %w", v, err)
	}
	return result, nil
}

// carve makes a file of the volume's bytes: by reflink, or sparsely copied
// where the volume does not begin on a block or lies on another filesystem.
func carve(ctx context.Context, file string, image *os.File, v disk.Volume) (err error) {
	out, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := out.Truncate(v.Size); err != nil {
		return err
	}
	err = reflink.CloneRange(out, 0, image, v.Offset, v.Size)
	if errors.Is(err, reflink.ErrUnsupported) {
		return reflink.CopyRange(ctx, out, 0, image, reflink.Range{Offset: v.Offset, Length: v.Size}, nil)
	}
	return err
}

// findings are the first lines of a checker's report that tell of more than its
// progress.
func findings(report string) []string {
	var found []string
	for _, line := range lastLines(report, 1000) {
		line = strings.TrimSpace(line)
		if line != "" && !progressLine.MatchString(line) && len(found) < 6 {
			found = append(found, line)
		}
	}
	return found
}

// progressLine is how e2fsck, xfs_repair, btrfs and fsck.vfat say how far they
// are, and who they are.
var progressLine = regexp.MustCompile(`^(Pass \d|Phase \d|- |\[\d+/\d+\]|e2fsck \d|fsck\.fat \d|Opening filesystem|Checking filesystem|UUID: )`)

func lastLines(s string, n int) []string {
	lines := strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' })
	return lines[max(0, len(lines)-n):]
}
