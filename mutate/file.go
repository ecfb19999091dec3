package mutate

import (
	"context"
	"os"
	"syscall"
	"time"

	"github.com/imgmut/imgmut/mutate/fault"
)

// FileID identifies the content of a file without reading it: whoever changes
// the bytes changes one of these.
type FileID struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"`
	Ctime int64  `json:"ctime"` // nanoseconds
}

func fileID(f *os.File) (FileID, error) {
	fi, err := f.Stat()
	if err != nil {
		return FileID{}, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return FileID{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

func idOf(file string) (FileID, error) {
	f, err := os.Open(file)
	if err != nil {
		return FileID{}, err
	}
	defer f.Close()
	return fileID(f)
}

// sameFile compares all that publishing leaves alone: a rename sets a new
// ctime, and a pool gets another device number with every mount.
func (a FileID) sameFile(b FileID) bool {
	return a.Ino == b.Ino && a.Size == b.Size && a.Mtime == b.Mtime
}

// clockTick is more than the clock of a filesystem moves at once: the kernel's
// tick is 10 ms at most, and kernels before 6.13 look no closer.
const clockTick = 20 * time.Millisecond

// settledID is a [FileID] by which a later change shows: two changes within one
// tick of the clock leave the same times, so that of a file that has just been
// written is taken for good only when the tick is over.
func settledID(ctx context.Context, f *os.File) (FileID, error) {
	id, err := fileID(f)
	if err != nil {
		return id, err
	}
	if age := time.Since(time.Unix(0, id.Ctime)); age >= 0 && age < clockTick {
		select {
		case <-time.After(clockTick - age):
		case <-ctx.Done():
			return id, context.Cause(ctx)
		}
	}
	return id, nil
}

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
