package bootc

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/imgmut/imgmut/mutate/compress"
	"github.com/imgmut/imgmut/mutate/content"
	"github.com/imgmut/imgmut/mutate/ostree"
)

// chainOf names a layer with all that is below it. A layer alone does not tell what it is
// made of: it may have links to files of the others.
func chainOf(below, diffID string) string {
	sum := sha256.Sum256([]byte(below + " " + diffID))
	return hex.EncodeToString(sum[:])
}

// layer gives the commit of a layer.
func (im *importing) layer(ctx context.Context, n int, chain string) (Layer, error) {
	var known Layer
	err := im.load("layers", chain, &known)
	if err == nil && known.Version == Version && known.Chain == chain && commitName().MatchString(known.Commit) {
		return known, nil
	}
	l := Layer{Version: Version, Chain: chain}
	if err != nil && !errors.Is(err, errNoRecord) {
		return l, err
	}
	in, err := im.Open(ctx, n)
	if err != nil {
		return l, err
	}
	im.Phase(fmt.Sprintf("import layer %d of %d of the container image", n+1, len(im.Layers)))
	l.Commit, l.Left, err = im.commitLayer(ctx, n, in)
	if err = errors.Join(err, in.Close()); err != nil {
		return l, err
	}
	if err := im.name(ctx, l.Commit, layerNames+chain); err != nil {
		return l, err
	}
	im.made[chain] = l
	return l, nil
}

// name gives a commit a name, which keeps it.
func (im *importing) name(ctx context.Context, commit, ref string) error {
	_, err := im.s.Run(ctx, "name a commit", nil, "refs", repo, "--force", "--create="+ref, commit)
	return err
}

// commitLayer makes a commit of a layer, which has proved to be the one that the image's
// configuration names when there is no error.
func (im *importing) commitLayer(ctx context.Context, n int, in io.Reader) (commit string, left Left, err error) {
	lower, err := os.OpenRoot(filepath.Join(im.Dir, tree))
	if errors.Is(err, fs.ErrNotExist) && n == 0 {
		lower, err = nil, nil
	}
	if err != nil {
		return "", left, err
	}
	if lower != nil {
		defer lower.Close()
	}
	filter := LayerFilter{Lower: lower, Scratch: filepath.Join(im.Dir, work), Room: im.Room}
	read, of := int64(0), im.Source.Layers[n]
	in = content.Reader(ctx, in, func(n int) {
		read += int64(n)
		im.Progress(read, max(read, of.Size))
	})
	filtered, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		var err error
		left, err = filter.plain(ctx, in, of.DiffID, out)
		out.CloseWithError(err)
		done <- err
	}()
	commit, err = im.s.Commit(ctx, ostree.Commit{Tar: filtered, Options: []string{"--no-bindings", "--timestamp=" + stamp(time.Time{})}})
	// If ostree was first to end, nobody reads what is still to come.
	filtered.CloseWithError(errGone)
	if filterErr := <-done; filterErr != nil && !errors.Is(filterErr, errGone) {
		return "", left, filterErr
	}
	return commit, left, err
}

var errGone = errors.New("ostree has ended")

// plain filters a layer that may be compressed, and compares the tar in it with its name.
func (f LayerFilter) plain(ctx context.Context, in io.Reader, diffID string, out io.Writer) (left Left, err error) {
	tar, end, err := unpacked(in)
	if err != nil {
		return left, layerError(ctx, err)
	}
	defer end()
	sum := sha256.New()
	summed := io.TeeReader(tar, sum)
	if left, err = f.Copy(ctx, summed, out); err != nil {
		return left, err
	}
	rest := content.Reader(ctx, io.LimitReader(summed, maxBehind), func(int) {})
	if n, err := io.Copy(io.Discard, rest); err != nil || n == maxBehind {
		return left, layerError(ctx, errors.Join(err, errors.New("much comes behind its end")))
	}
	if is := "sha256:" + hex.EncodeToString(sum.Sum(nil)); is != diffID {
		return left, wrong("", "it unpacks to %s, and the image says that it is %s", is, diffID)
	}
	return left, nil
}

// maxBehind is how much may come behind the end of a tar, of nothing, to fill up a tape.
const maxBehind = 64 << 20

// unpacked gives a tar that may be compressed, in the ways that layers are. What begins
// otherwise is a tar, or is found to be none.
func unpacked(in io.Reader) (tar io.Reader, end func(), err error) {
	b := bufio.NewReaderSize(in, 1<<20)
	head, err := b.Peek(compress.HeadSize)
	if err != nil && err != io.EOF {
		return nil, nil, err
	}
	m := compress.Of(head)
	if m.Name != "gzip" && m.Name != "zstd" {
		return b, func() {}, nil
	}
	z, err := m.NewReader(b)
	if err != nil {
		return nil, nil, err
	}
	return z, func() { _ = z.Close() }, nil
}
