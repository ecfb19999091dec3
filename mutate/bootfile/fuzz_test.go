package bootfile_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/bootfile"
)

// FuzzWalk: whatever a file is, looking into it ends, within the budget and
// without an error; and an archive in front of it is seen all the same.
func FuzzWalk(f *testing.F) {
	fixtures.Require(f, fixtures.Tools)
	plain := archive("conf/resume", "RESUME=PARTUUID=x", "a", strings.Repeat("b", 5000))
	for _, c := range compressors {
		f.Add(piped(f, plain, c[0], c[1:]...))
	}
	f.Add(plain)
	f.Add([]byte("\x28\xb5\x2f\xfd")) // of which the library says that it is the end
	f.Add(program(".initrd", plain))
	core := make([]byte, 4096)
	copy(core[512:], "\xea\x1c\x82\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x10\x00\x00")
	f.Add(core)
	f.Fuzz(func(t *testing.T, b []byte) {
		const budget = 16 << 20
		in, err := walk(t, b, budget)
		if err != nil && err != bootfile.ErrTooLarge {
			t.Fatal(err)
		}
		seen := len(in.flat)
		for _, content := range in.files {
			seen += len(content)
		}
		if seen > budget {
			t.Fatalf("%d bytes of a budget of %d", seen, budget)
		}
		if after, err := walk(t, append(archive("first", "1"), b...), 2*budget); after.files["first"] != "1" && len(b) > 0 && err == nil {
			if _, again := in.files["first"]; !again {
				t.Fatalf("the archive in front is not seen: %q", after.files)
			}
		}
	})
}

// FuzzBytes: a file that is nothing known is given byte for byte.
func FuzzBytes(f *testing.F) {
	f.Add([]byte("root=PARTUUID=x\n\x00y"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = append([]byte("#"), b...)
		var got bytes.Buffer
		err := bootfile.Walk(t.Context(), bytes.NewReader(b), bootfile.NewBudget(1<<20), bootfile.Visitor{
			Content: func(_ string, r io.Reader) error { _, err := got.ReadFrom(r); return err },
			Unread:  func(_, _ string) {}})
		if err != nil || len(b) < 528 && !bytes.Equal(got.Bytes(), b) {
			t.Fatalf("%v: %q becomes %q", err, b, got.Bytes())
		}
	})
}
