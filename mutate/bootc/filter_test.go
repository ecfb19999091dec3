package bootc

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/mutate/fault"
)

// entry is one of a layer: its data are in Link for a regular file.
type entry struct {
	Type    byte
	Name    string
	Link    string
	Mode    int64
	UID     int
	Records map[string]string
}

func layerOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Typeflag: e.Type, Name: e.Name, Mode: e.Mode, Uid: e.UID, PAXRecords: e.Records, ModTime: time.Unix(7, 0)}
		if e.Type == tar.TypeXGlobalHeader {
			h = &tar.Header{Typeflag: e.Type, PAXRecords: e.Records}
		}
		data := ""
		if e.Type == tar.TypeReg {
			data = e.Link
			h.Size = int64(len(data))
		} else {
			h.Linkname = e.Link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// shown is what a tar holds, a line each.
func shown(t testing.TB, b []byte) string {
	t.Helper()
	var s strings.Builder
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return s.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&s, "%c %04o %d %s", h.Typeflag, h.Mode, h.Uid, h.Name)
		if rest := h.Linkname + string(data); rest != "" {
			fmt.Fprintf(&s, " %s", rest)
		}
		for key, value := range h.PAXRecords {
			if strings.HasPrefix(key, xattrRecord) {
				fmt.Fprintf(&s, " %s=%s", strings.TrimPrefix(key, xattrRecord), value)
			}
		}
		s.WriteByte('\n')
	}
}

func filterTo(t testing.TB, lower *os.Root, layer []byte) (string, Left, error) {
	t.Helper()
	f := LayerFilter{Lower: lower, Scratch: t.TempDir(), Room: func(int64) error { return nil }}
	var out bytes.Buffer
	left, err := f.Copy(t.Context(), bytes.NewReader(layer), &out)
	if err != nil {
		return "", left, err
	}
	return shown(t, out.Bytes()), left, nil
}

// lowerTree is what the layers below have made.
func lowerTree(t testing.TB) *os.Root {
	t.Helper()
	dir := t.TempDir()
	for _, err := range []error{
		os.MkdirAll(filepath.Join(dir, "usr/bin"), 0o755),
		os.MkdirAll(filepath.Join(dir, "usr/etc/private"), 0o755),
		unix.Chmod(filepath.Join(dir, "usr/etc/private"), 0o2700),
		os.WriteFile(filepath.Join(dir, "usr/bin/old"), []byte("old"), 0o755),
		os.Symlink("old", filepath.Join(dir, "usr/bin/sym")),
		os.Symlink("/etc/passwd", filepath.Join(dir, "usr/bin/out")),
		unix.Mkfifo(filepath.Join(dir, "usr/bin/pipe"), 0o600),
		unix.Setxattr(filepath.Join(dir, "usr/bin/old"), "user.old", []byte("1"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func reg(name, data string) entry {
	return entry{Type: tar.TypeReg, Name: name, Link: data, Mode: 0o644}
}
func link(name, to string) entry { return entry{Type: tar.TypeLink, Name: name, Link: to} }
func symlink(name, to string) entry {
	return entry{Type: tar.TypeSymlink, Name: name, Link: to, Mode: 0o777}
}
func dir(name string, m int64) entry { return entry{Type: tar.TypeDir, Name: name, Mode: m} }

// TestLayerFilter: what becomes of each entry of a layer.
func TestLayerFilter(t *testing.T) {
	const object = "sysroot/ostree/repo/objects/ab/cd.file"
	long := strings.Repeat("d/", 90) + strings.Repeat("n", 200)
	for name, c := range map[string]struct {
		layer []entry
		want  string
		left  Left
	}{
		"root":   {layer: []entry{dir("./", 0o755)}, want: "5 0755 0 .\n"},
		"files":  {layer: []entry{dir("./usr/", 0o755), reg("./usr/a", "A")}, want: "5 0755 0 usr\n0 0644 0 usr/a A\n"},
		"setuid": {layer: []entry{{Type: tar.TypeReg, Name: "a", Mode: 0o104755, UID: 7}}, want: "0 4755 7 a\n"},
		"etc": {layer: []entry{dir("etc", 0o700), reg("etc/x", "X"), link("etc/y", "etc/x")}, want: "5 0755 0 usr\n" +
			"5 0700 0 usr/etc\n0 0644 0 usr/etc/x X\n1 0000 0 usr/etc/y usr/etc/x\n"},
		"links": {layer: []entry{symlink("bin", "usr/bin"), symlink("usr/x", "/etc/x")}, want: "2 0777 0 bin usr/bin\n" +
			"5 0755 0 usr\n2 0777 0 usr/x /etc/x\n"},
		"emptied": {layer: []entry{dir("run", 0o755), reg("run/x", ""), reg("tmp/x/y", ""), dir("dev/pts", 0o755),
			reg("proc/1", ""), reg("sys/x", "")}, want: "5 0755 0 run\n"},
		"devices": {layer: []entry{{Type: tar.TypeChar, Name: "usr/null"}, {Type: tar.TypeFifo, Name: "usr/pipe"},
			{Type: tar.TypeBlock, Name: "usr/sda"}}, left: Left{Devices: 3, Device: "/usr/null"}},
		"var": {layer: []entry{dir("var", 0o755), reg("var/lib", "V")}, want: "5 0755 0 var\n0 0644 0 var/lib V\n", left: Left{Var: 1}},
		"xattrs": {layer: []entry{{Type: tar.TypeReg, Name: "c", Records: map[string]string{
			xattrRecord + "security.capability": "CAP", xattrRecord + "trusted.overlay.opaque": "y"}}},
			want: "0 0000 0 c security.capability=CAP\n"},
		"whiteouts": {layer: []entry{reg("usr/.wh.x", ""), reg("etc/.wh.y", ""), reg("etc/.wh..wh..opq", ""), reg(".wh.etc", "")},
			want: "5 0755 0 usr\n0 0644 0 usr/.wh.x \n5 0755 0 usr/etc\n0 0644 0 usr/etc/.wh.y \n" +
				"0 0644 0 usr/etc/.wh..wh..opq \n0 0644 0 usr/.wh.etc \n"},
		"aufs":      {layer: []entry{reg(".wh..wh.aufs", ""), dir(".wh..wh.plnk", 0o700)}},
		"kept dirs": {layer: []entry{reg(".wh.tmp", ""), reg(".wh.run", "")}},
		"long":      {layer: []entry{reg("a", ""), reg(long, "L")}, want: "…" + long + " L\n"},
		"not ASCII": {layer: []entry{reg("Főtanúsítvány", "C")}, want: "0 0644 0 Főtanúsítvány C\n"},
		"not UTF-8": {layer: []entry{reg("\xe9t\xe9", "C")}, want: "0 0644 0 \xe9t\xe9 C\n"},
		"global": {layer: []entry{{Type: tar.TypeXGlobalHeader, Records: map[string]string{"comment": "x"}}, reg("a",
			"")}, want: "0 0644 0 a\n"},
		"below":     {layer: []entry{link("usr/new", "usr/bin/old")}, want: "5 0755 0 usr\n0 0755 0 usr/new old user.old=1\n"},
		"below sym": {layer: []entry{link("usr/new", "./usr/bin/sym")}, want: "5 0755 0 usr\n2 0777 0 usr/new old\n"},
		"parents": {layer: []entry{reg("etc/private/x", "X")}, want: "5 0755 0 usr\n5 0755 0 usr/etc\n" +
			"5 2700 0 usr/etc/private\n0 0644 0 usr/etc/private/x X\n"},
		"late dir": {layer: []entry{reg("opt/x", "X"), dir("opt", 0o711)}, want: "5 0755 0 opt\n0 0644 0 opt/x X\n5 0711 0 opt\n"},
		"link again": {layer: []entry{link("usr/new", "usr/bin/old"), link("usr/2", "usr/new")}, want: "5 0755 0 usr\n" +
			"0 0755 0 usr/new old user.old=1\n1 0000 0 usr/2 usr/new\n"},
		"encapsulated": {layer: []entry{reg("sysroot/ostree/repo/config", "c"), {Type: tar.TypeReg, Name: object, Link: "O",
			Mode: 0o100755, UID: 3},
			reg(object+"-xattrs", "x"), link("usr/a", object), link("usr/b", "./"+object), link(object+"-xattrs-link",
				object+"-xattrs"), reg("sysroot/ostree/repo/objects/aa/bb.dirtree", "d")},
			want: "5 0755 0 usr\n0 0755 3 usr/a O\n1 0000 0 usr/b usr/a\n"},
		"encapsulated sym": {layer: []entry{symlink(object, "there"), link("usr/a", object), link("usr/b", object)},
			want: "5 0755 0 usr\n2 0777 0 usr/a there\n2 0777 0 usr/b there\n"},
		"not linked": {layer: []entry{reg(object, "O")}},
		"many objects": {layer: []entry{reg(object, "one"), link("a", object), reg(object[:len(object)-6]+"ee.file", "two"),
			reg(object[:len(object)-6]+"ff.file", "three"),
			link("b", object[:len(object)-6]+"ff.file"), link("c", object[:len(object)-6]+"ee.file"), link("d", object)},
			want: "0 0644 0 a one\n0 0644 0 b three\n0 0644 0 c two\n1 0000 0 d a\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got, left, err := filterTo(t, lowerTree(t), layerOf(t, c.layer...))
			if err != nil {
				t.Fatal(err)
			}
			got, ok := strings.CutPrefix(got, "5 0755 0 .\n")
			if !ok {
				t.Error("it does not begin with the root")
			}
			if end, ok := strings.CutPrefix(c.want, "…"); ok && strings.HasSuffix(got, end) {
				c.want = got
			}
			if got = strings.ReplaceAll(got, " \n", "\n"); got != strings.ReplaceAll(c.want, " \n", "\n") || left != c.left {
				t.Errorf("got %v\n%swant %v\n%s", left, got, c.left, c.want)
			}
		})
	}
}

// TestLayerHostile: what no layer may have is refused, and it is the image's fault.
func TestLayerHostile(t *testing.T) {
	whole := layerOf(t, reg("a", strings.Repeat("a", 4000)), reg("b", "b"))
	for name, c := range map[string]struct {
		layer []byte
		want  string
	}{
		"dotdot":        {layerOf(t, reg("usr/../../etc/x", "")), "out of the tree"},
		"link out":      {layerOf(t, link("a", "../../etc/passwd")), "out of the tree"},
		"link nowhere":  {layerOf(t, link("a", "usr/nothing")), "no file of this layer"},
		"link to dir":   {layerOf(t, link("a", "usr/bin")), "no file of this layer"},
		"link to pipe":  {layerOf(t, link("a", "usr/bin/pipe")), "no file of this layer"},
		"link to self":  {layerOf(t, link("a", "a")), "no file of this layer"},
		"link to tmp":   {layerOf(t, link("a", "tmp/x")), "no file of this layer"},
		"link through":  {layerOf(t, link("a", "usr/bin/out/x")), "escapes"},
		"whiteout .":    {layerOf(t, reg("usr/.wh..", "")), "removes the directory"},
		"whiteout ..":   {layerOf(t, reg("usr/.wh...", "")), "removes the directory"},
		"whiteout none": {layerOf(t, reg("usr/.wh.", "")), "removes the directory"},
		"name":          {layerOf(t, reg(strings.Repeat("n", 256), "")), "longer than a name"},
		"path":          {layerOf(t, reg(strings.Repeat("n/", 2100)+"n", "")), "longer than a path"},
		"cut":           {whole[:2000], "damaged"},
		"cut header":    {whole[:100], "damaged"},
		"no tar":        {bytes.Repeat([]byte("no tar"), 200), "damaged"},
		"sum":           {append([]byte("X"), whole[1:]...), "damaged"},
		"user":          {layerOf(t, entry{Type: tar.TypeReg, Name: "a", UID: 1<<32 - 1}), "nobody has the number"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := filterTo(t, lowerTree(t), c.layer)
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.Of(err) != fault.Image {
				t.Errorf("%v of class %q, want %q", err, fault.Of(err), c.want)
			}
		})
	}
}

// TestLayerHeld: what is kept of objects in memory is bounded, also where it is much of few.
func TestLayerHeld(t *testing.T) {
	const object = "sysroot/ostree/repo/objects/ab/cd.file"
	one := layerOf(t, entry{Type: tar.TypeSymlink, Name: object, Link: "x",
		Records: map[string]string{xattrRecord + "user.x": strings.Repeat("x", 1<<20-100)}})
	one = one[:len(one)-2*tarBlock] // without the end
	var many []io.Reader
	for range maxHeld>>20 + 2 {
		many = append(many, bytes.NewReader(one))
	}
	f := LayerFilter{Scratch: t.TempDir(), Room: func(int64) error { return nil }}
	_, err := f.Copy(t.Context(), io.MultiReader(many...), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "more files than") || fault.Of(err) != fault.Image {
		t.Errorf("%v of class %q", err, fault.Of(err))
	}
}

// TestLayerRoom: it is asked before it is taken, and no is an answer.
func TestLayerRoom(t *testing.T) {
	no := fault.New(fault.Host, "", "full")
	f := LayerFilter{Scratch: t.TempDir(), Room: func(int64) error { return no }}
	if _, err := f.Copy(t.Context(), bytes.NewReader(layerOf(t, reg("a", "A"))), io.Discard); fault.Of(err) != fault.Host {
		t.Error(err)
	}
	f.Room = func(int64) error { return nil }
	if _, err := f.Copy(t.Context(), bytes.NewReader(layerOf(t, reg("a", "A"))), broken{}); err == nil || fault.Of(err) == fault.Image {
		t.Errorf("of a writer that is broken: %v of class %q", err, fault.Of(err))
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, unix.EPIPE }

// few is a writer of no more than a mebibyte.
type few struct{ *bytes.Buffer }

var errFew = errors.New("enough")

func (f *few) Write(b []byte) (int, error) {
	if f.Len()+len(b) > 1<<20 {
		return 0, errFew
	}
	return f.Buffer.Write(b)
}

// FuzzLayer: of whatever comes, what is written is a tar whose names lead nowhere but into
// the tree, and whose links are to files that it has.
func FuzzLayer(f *testing.F) {
	f.Add(layerOf(f, dir("./", 0o755), reg("etc/x", "X"), link("etc/y", "etc/x"), reg("usr/.wh..wh..opq", "")))
	f.Add(layerOf(f, reg("sysroot/ostree/repo/objects/ab/cd.file", "O"), link("usr/a", "sysroot/ostree/repo/objects/ab/cd.file")))
	f.Add(layerOf(f, entry{Type: tar.TypeReg, Name: "c", Records: map[string]string{xattrRecord + "user.x": "1"}}, link("z", "usr/bin/old")))
	lower := lowerTree(f)
	f.Fuzz(func(t *testing.T, layer []byte) {
		filter := LayerFilter{Lower: lower, Scratch: os.TempDir(), Room: func(n int64) error {
			if n > roomStep { // of an object, which would be put aside
				return fault.New(fault.Host, "", "full")
			}
			return nil
		}}
		var out bytes.Buffer
		if _, err := filter.Copy(t.Context(), bytes.NewReader(layer), &few{&out}); err != nil {
			if fault.Of(err) == "" && !errors.Is(err, errFew) {
				t.Fatalf("of no class: %v", err)
			}
			return
		}
		files := map[string]bool{}
		for r := tar.NewReader(&out); ; {
			h, err := r.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			name := strings.TrimSuffix(h.Name, "/")
			if name != "." && !filepath.IsLocal(name) || strings.HasPrefix(name, "etc/") || strings.HasPrefix(name, "tmp/") {
				t.Fatalf("%q", h.Name)
			}
			switch h.Typeflag {
			case tar.TypeReg:
				files[name] = true
			case tar.TypeLink:
				if !files[h.Linkname] {
					t.Fatalf("%q is a link to %q", h.Name, h.Linkname)
				}
				files[name] = true
			case tar.TypeDir, tar.TypeSymlink:
			default:
				t.Fatalf("%q is of type %q", h.Name, h.Typeflag)
			}
		}
	})
}
