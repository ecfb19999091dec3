package step

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// editFile changes the text of a file of the image. Its mode and owner stay, and it is
// left alone if nothing changes.
func editFile(ctx context.Context, g Guest, name string, edit func(string) (string, error)) error {
	st, err := g.Stat(ctx, name)
	for range 8 { // a link leads to the file that is meant
		if err != nil || st.Type != fs.ModeSymlink {
			break
		}
		if name = path.Join(path.Dir(name), st.Link); path.IsAbs(st.Link) {
			name = st.Link
		}
		st, err = g.Stat(ctx, name)
	}
	if err != nil {
		return err
	}
	if st.Type != 0 {
		return fmt.Errorf("change %s: it is not a regular file", name)
	}
	was, err := g.ReadFile(ctx, name)
	if err != nil {
		return err
	}
	is, err := edit(string(was))
	if err != nil {
		return fmt.Errorf("change %s: %w", name, err)
	}
	if is == string(was) {
		return nil
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(st.Mode), Uid: st.UID, Gid: st.GID, Size: int64(len(is))}
	if st.UID < 0 { // on a volume that keeps neither
		h.Mode, h.Uid, h.Gid = 0o644, 0, 0
	}
	return g.Put(ctx, func(t *tar.Writer) error {
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.WriteString(t, is)
		return err
	})
}
