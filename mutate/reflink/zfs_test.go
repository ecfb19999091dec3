package reflink

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// answering has the system call that clones answer with errors, one after the other, and
// then copy a text as a clone would.
func answering(t *testing.T, text string, errs ...error) (calls *int) {
	t.Helper()
	calls = new(int)
	was := ficlone
	t.Cleanup(func() { ficlone = was })
	ficlone = func(dst, _ *os.File) error {
		*calls++
		if n := *calls - 1; n < len(errs) {
			return errs[n]
		}
		_, err := dst.WriteAt([]byte(text), 0)
		return err
	}
	return calls
}

// TestCloneAsZFSAnswers: with the errors that OpenZFS documents. It does not run on the
// machines of the tests, so this is all that is known of it.
func TestCloneAsZFSAnswers(t *testing.T) {
	dirty := make([]error, dirtyTries+1)
	for n := range dirty {
		dirty[n] = unix.EAGAIN
	}
	for _, tc := range []struct {
		name  string
		text  string
		errs  []error
		want  error
		calls int
	}{
		{"at once", "text", nil, nil, 1},
		{"blocks that are not on the disk yet", "text", dirty[:3], nil, 4},
		{"blocks that never are", "text", dirty, unix.EAGAIN, dirtyTries + 1},
		{"cloning that is off", "text", []error{unix.EOPNOTSUPP}, ErrUnsupported, 1},
		{"another pool", "text", []error{unix.EXDEV}, ErrUnsupported, 1},
		{"records of another size", "text", []error{unix.EINVAL}, ErrUnsupported, 1},
		{"a full pool", "text", []error{unix.EAGAIN, unix.ENOSPC}, unix.ENOSPC, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			calls := answering(t, tc.text, tc.errs...)
			src, dst := newFile(t), newFile(t)
			if _, err := src.WriteString("text"); err != nil {
				t.Fatal(err)
			}
			if err := Clone(dst, src); !errors.Is(err, tc.want) || *calls != tc.calls {
				t.Errorf("Clone = %v after %d calls, want %v after %d", err, *calls, tc.want, tc.calls)
			}
		})
	}
	answering(t, "tex")
	src, dst := newFile(t), newFile(t)
	if _, err := src.WriteString("text"); err != nil {
		t.Fatal(err)
	}
	if err := Clone(dst, src); err == nil {
		t.Error("a clone that is cut off is taken for one")
	}
}

func TestCloningOff(t *testing.T) {
	dir := t.TempDir()
	for text, off := range map[string]bool{"0\n": true, "1\n": false} {
		if err := os.WriteFile(filepath.Join(dir, "zfs_bclone_enabled"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := CloningOff(dir); (got != "") != off {
			t.Errorf("%q: %q", text, got)
		}
	}
	if got := CloningOff(filepath.Join(dir, "none")); got != "" {
		t.Errorf("without ZFS: %q", got)
	}
}

func TestFilesystem(t *testing.T) {
	for dir, want := range map[string]string{"/dev/shm": "tmpfs", "/proc": "a filesystem of type 0x9fa0"} {
		if got, err := Filesystem(dir); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", dir, got, err, want)
		}
	}
	if _, err := Filesystem("/none"); !errors.Is(err, unix.ENOENT) {
		t.Errorf("of nothing: %v", err)
	}
}
