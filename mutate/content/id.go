package content

import (
	"context"
	"os"
	"syscall"
	"time"
)

// FileID identifies the content of a file without reading it: a change of the
// bytes changes one of these.
type FileID struct {
	Dev   uint64 `json:"dev"`
	Ino   uint64 `json:"ino"`
	Size  int64  `json:"size"`
	Mtime int64  `json:"mtime"`
	Ctime int64  `json:"ctime"` // nanoseconds
}

// IDOf is the identity of an open file.
func IDOf(f *os.File) (FileID, error) {
	fi, err := f.Stat()
	if err != nil {
		return FileID{}, err
	}
	st := fi.Sys().(*syscall.Stat_t)
	return FileID{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, nil
}

// IDOfPath is [IDOf] for the file of a path.
func IDOfPath(file string) (FileID, error) {
	f, err := os.Open(file)
	if err != nil {
		return FileID{}, err
	}
	defer f.Close()
	return IDOf(f)
}

// SameFile compares all that publishing leaves alone: a rename sets a new
// ctime, and a pool gets another device number with every mount.
func (a FileID) SameFile(b FileID) bool {
	return a.Ino == b.Ino && a.Size == b.Size && a.Mtime == b.Mtime
}

// clockTick is the granularity of file times, and some: the kernel's tick is
// 10 ms at most, and kernels before 6.13 look no closer.
const clockTick = 20 * time.Millisecond

// SettledID is a [FileID] by which a later change shows: two changes within one
// tick of the clock leave the same times, so that of a file that has just been
// written is taken for good only when the tick is over.
func SettledID(ctx context.Context, f *os.File) (FileID, error) {
	id, err := IDOf(f)
	if err != nil {
		return id, err
	}
	if wait := restOfTick(time.Since(time.Unix(0, id.Ctime)), tickOf(id.Ctime)); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return id, context.Cause(ctx)
		}
	}
	return id, nil
}

// restOfTick is how much is left of the tick of the clock in which something
// happened that is so old: nothing if it is of the future, by a clock that was
// set back.
func restOfTick(age, tick time.Duration) time.Duration {
	if age < 0 {
		return 0
	}
	return max(0, tick-age)
}

// tickOf is the granularity of the times of a filesystem, going by one of them,
// in nanoseconds. A whole second is one of a filesystem that keeps no more, or
// rare luck.
func tickOf(ctime int64) time.Duration {
	if ctime%int64(time.Second) == 0 {
		return clockTick + time.Second
	}
	return clockTick
}
