package format

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/fault"
)

// edit changes the bytes of a file.
type edit func(b []byte) []byte

func put32(at int, v uint32) edit {
	return func(b []byte) []byte { binary.BigEndian.PutUint32(b[at:], v); return b }
}

func put64(at int, v uint64) edit {
	return func(b []byte) []byte { binary.BigEndian.PutUint64(b[at:], v); return b }
}

// inL2 changes the entries of the first second table of a qcow2.
func inL2(change func(n int, entry uint64) uint64) edit {
	return func(b []byte) []byte {
		l2 := binary.BigEndian.Uint64(b[binary.BigEndian.Uint64(b[40:]):]) &^ (1 << 63)
		for n := range 16 {
			e := b[l2+uint64(n)*8:]
			binary.BigEndian.PutUint64(e, change(n, binary.BigEndian.Uint64(e)))
		}
		return b
	}
}

// spoil puts those bytes where the first compressed cluster of a qcow2 is.
func spoil(with byte) edit {
	return func(b []byte) []byte {
		var at uint64
		inL2(func(_ int, e uint64) uint64 {
			if at == 0 && e>>62&1 != 0 {
				at = e & (1<<54 - 1)
			}
			return e
		})(b)
		copy(b[at:], bytes.Repeat([]byte{with}, 100))
		return b
	}
}

func cut(n int) edit { return func(b []byte) []byte { return b[:len(b)-n] } }

// TestRefused: what is damaged, or names other files, is refused with the reason, and no
// other file is opened: each that could be is a pipe, which nobody writes to.
func TestRefused(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	const convert = "qemu-img convert -O qcow2 raw out"
	for _, tc := range []struct {
		name, make string
		edit       edit
		want       string
	}{
		{"a backing file", "qemu-img create -q -u -f qcow2 -b $PWD/pipe -F raw out 1M", nil, `another image, "/`},
		{"a backing protocol",
			"qemu-img create -q -u -f qcow2 -b nbd:unix:pipe -F raw out 1M", nil, `another image, "nbd:unix:pipe"`},
		{"a backing file in JSON",
			`qemu-img create -q -u -f qcow2 -b 'json:{"driver":"raw","file.filename":"pipe"}' -F raw out 1M`, nil, "another image"},
		{"a backing file of a format to guess",
			"qemu-img create -q -u -f qcow2 -b pipe -F raw out 1M", func(b []byte) []byte {
				at := bytes.Index(b, []byte{0xe2, 0x79, 0x2a, 0xca})
				return put32(at, 0x11111111)(b)
			}, "to guess that is not safe"},
		{"a backing name of no length", convert, put64(8, 512), "of 0 bytes at 512"},
		{"a backing name outside",
			convert, func(b []byte) []byte { return put64(8, 1<<40)(put32(16, 10)(b)) }, "of 10 bytes at 1099511627776"},
		{"a data file", convert, put64(72, featureDataFile), "its bytes are in another file"},
		{"an open one", convert, put64(72, featureDirty), "it was not closed"},
		{"one that says it is damaged", convert, put64(72, featureCorrupt), "marked as damaged"},
		{"features of the future", convert, put64(72, 1<<40), "features that imgmut does not know"},
		{"an unknown compression", convert, put64(72, featureZstd), "does not say how it is compressed"},
		{"an encrypted one", convert, put32(32, 2), "it is encrypted"},
		{"version 1", convert, put32(4, 1), "first version of the format"},
		{"version 4", convert, put32(4, 4), "of version 4"},
		{"clusters of a byte", convert, put32(20, 0), "of 2^0 bytes"},
		{"clusters of everything", convert, put32(20, 63), "of 2^63 bytes"},
		{"60 PiB", convert, put64(24, 60<<50), "it says that it has"},
		{"less than nothing", convert, put64(24, 1<<63), "it says that it has"},
		{"32 TiB in a small table", convert, put64(24, 32<<40), "its table has 1 entries"},
		{"a table for 32 TiB", convert, func(b []byte) []byte { return put64(24, 8<<40)(put32(36, 1<<30)(b)) }, "at"},
		{"a table of more than there is",
			convert, func(b []byte) []byte { return put64(24, 60<<40)(put32(36, 1<<30)(b)) }, "its table is at"},
		{"a table outside", convert, put64(40, 1<<50), "its table is at"},
		{"a table between clusters", convert, put64(40, 512), "its table is at"},
		{"a second table outside", convert, func(b []byte) []byte {
			return put64(int(binary.BigEndian.Uint64(b[40:])), 1<<50)(b)
		}, "it has a table at"},
		{"clusters outside",
			convert, inL2(func(int, uint64) uint64 { return 1 << 50 }), "in the middle of its clusters"},
		{"clusters between clusters",
			convert, inL2(func(n int, e uint64) uint64 { return e + 512 }), "where none can be"},
		{"a part of a cluster in the header", "qemu-img convert -o extended_l2=on,cluster_size=64k -O qcow2 raw out",
			inL2(func(n int, e uint64) uint64 { return e & 0xffff_ffff * (uint64(n) & 1) }), "a cluster is in its header"},
		{"one cluster again and again",
			"qemu-img create -q -f qcow2 out 64M && qemu-io -c 'write 0 64k' out >&2", func(b []byte) []byte {
				l2 := binary.BigEndian.Uint64(b[binary.BigEndian.Uint64(b[40:]):]) &^ (1 << 63)
				for n := range 1000 {
					copy(b[l2+uint64(n)*8:][:8], b[l2:])
				}
				return b
			}, "more clusters than it has room for"},
		{"one table again and again",
			"qemu-img create -q -f qcow2 -o cluster_size=512 out 64M && qemu-io -c 'write 0 512' out >&2",
			func(b []byte) []byte {
				l1 := binary.BigEndian.Uint64(b[40:])
				for n := range 2048 {
					copy(b[l1+uint64(n)*8:][:8], b[l1:])
				}
				return b
			}, "more tables than it has room for"},
		{"a damaged cluster", "qemu-img convert -c -O qcow2 raw out", spoil(0xff), "cannot be unpacked"},
		{"a damaged cluster of zstd",
			"qemu-img convert -c -o compression_type=zstd -O qcow2 raw out", spoil(0), "cannot be unpacked"},
		{"a compressed cluster outside", "qemu-img convert -c -O qcow2 raw out", inL2(func(_ int, e uint64) uint64 {
			if e>>62&1 != 0 {
				e = e&^(1<<54-1) | 1<<40
			}
			return e
		}), "a cluster is at 1099511627776"},
		{"one that is cut off", convert, cut(70_000), "in the middle of its clusters"},
		{"one that ends in its header", convert, func(b []byte) []byte { return b[:100] }, "ends in its header"},
		{"a vmdk of text",
			"printf '# Disk DescriptorFile\nversion=1\nRW 100 FLAT \"pipe\" 0\n' > out", nil,
			"a text that describes other files"},
		{"a vmdk with a text inside",
			"printf 'KDMV\\1\\0\\0\\0\\3' > out; truncate -s 28 out; " +
				"printf '\\1\\0\\0\\0\\0\\0\\0\\0\\24' >> out; truncate -s 512 out; " +
				"printf '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n' >> out; " +
				"printf 'createType=\"monolithicFlat\"\nRW 100 FLAT \"'$PWD'/pipe\" 0\n' >> out; truncate -s 11k out",
			nil, "its bytes are in another file"},
		{"a vmdk without its last sector", "qemu-img convert -O vmdk raw out", cut(512), "in the middle of its data"},
		{"a vmdk without its last cluster", "qemu-img convert -O vmdk raw out", cut(70_000), "vmdk"},
		{"a stream without its end",
			"qemu-img convert -O vmdk -o subformat=streamOptimized raw out", cut(70_000), "vmdk"},
		{"a vdi without its last sector", "qemu-img convert -O vdi raw out", cut(512), "in the middle of its data"},
		{"a vpc that is the difference to another", "qemu-img convert -O vpc raw out", func(b []byte) []byte {
			return put32(len(b)-512+60, 4)(b)
		}, "its bytes are in another file"},
		{"a fixed vpc that says so", "qemu-img convert -O vpc -o subformat=fixed raw out", func(b []byte) []byte {
			footer := len(b) - 512
			return put32(footer+64, be.Uint32(b[footer+64:])-2)(put32(footer+60, 4)(b)) // the sort was 2
		}, "its bytes are in another file"},
		{"a size between sectors", convert, put64(24, 300_000), "it says that it has 300000 bytes"},
		{"zeros of the future", "qemu-img convert -o compat=0.10 -O qcow2 raw out",
			inL2(func(_ int, e uint64) uint64 { return e | 1 }), "a mark that its version does not know"},
		{"a vpc without its last sector", "qemu-img convert -O vpc raw out", cut(1024), ""},
		{"a vhdx that is cut off",
			"qemu-img convert -O vhdx raw out", func(b []byte) []byte { return b[:8<<20+1<<19] }, "vhdx"},
		{"a vmdk that is cut off",
			"qemu-img convert -O vmdk raw out", func(b []byte) []byte { return b[:1000] }, "vmdk"},
		{"an old vmdk", "printf COWD > out; truncate -s 4096 out", nil, "of an old ESX"},
		{"a vhdx of zeros", "printf vhdxfile > out; truncate -s 4M out", nil, "vhdx"},
		{"a vdi that is cut off",
			"qemu-img convert -O vdi raw out", func(b []byte) []byte { return b[:512] }, "in the middle of its data"},
		{"a vdi of 60 PiB", "qemu-img convert -O vdi raw out", func(b []byte) []byte {
			binary.LittleEndian.PutUint64(b[0x170:], 60<<50)
			return b
		}, "vdi"},
		{"qed", "printf 'QED\\000' > out; truncate -s 4096 out", nil, "of a format that was given up"},
		{"an archive", "tar cf out raw", nil, "an archive of files"},
		{"an archive in gzip", "tar czf out raw", nil, "an archive of files"},
		{"gzip that is cut off", "gzip -c raw > out", cut(10), "it is damaged: unexpected EOF"},
		{"xz that is cut off", "xz -1c raw > out", cut(100), "it is damaged"},
		{"zstd that is cut off", "zstd -q raw -o out", cut(100), "it is damaged"},
		{"bzip2 that is cut off", "bzip2 -c raw > out", cut(100), "it is damaged"},
		{"gzip with something behind", "gzip -c raw > out; echo more >> out", nil, "something else behind its end"},
		{"lz4 of a form that has no end", "lz4 -q -l raw out", nil, "that was cut off looks whole"},
		{"lz4 that is cut off", "lz4 -q raw out", cut(10), "it is damaged"},
		{"gzip in gzip", "gzip -c raw | gzip > out", nil, "it is compressed twice"},
		{"lzo", "printf '\\211LZO\\000\\r\\n' > out; truncate -s 4096 out", nil, "imgmut cannot unpack that"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			out := filepath.Join(dir, "out")
			rawImage(t, filepath.Join(dir, "raw"), 1<<20)
			if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
				t.Fatal(err)
			}
			fixtures.Program(t, "", "env", "-C", dir, "sh", "-c", tc.make)
			b, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			if tc.edit != nil {
				b = tc.edit(b)
				if err := os.WriteFile(out, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			o := allow()
			if strings.Contains(tc.name, "guess") {
				o.Beside = dir
			}
			_, err = open(t, out, o)
			if err == nil || fault.Of(err) != fault.Image || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Open = %v, of class %q, want %q", err, fault.Of(err), tc.want)
			}
			if is, err := os.ReadFile(out); err != nil || !bytes.Equal(is, b) {
				t.Errorf("the file has changed, %v", err)
			}
		})
	}
}

// made is a directory with what a script makes of a raw image.
func made(t *testing.T, script string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	rawImage(t, filepath.Join(dir, "raw"), 3<<20)
	fixtures.Program(t, "", "env", "-C", dir, "sh", "-ec", script)
	return dir
}

// TestBacking: an image that is the difference to others is one with them, if that is
// allowed, and if they are in its directory.
func TestBacking(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	beside := func(file string) Options {
		o := allow()
		o.Beside = filepath.Dir(file)
		return o
	}
	const change = "; qemu-io -c 'write -P 7 100k 300k' -c 'write -z 1M 200k' -c 'discard 2M 100k' out >&2; " +
		"qemu-img convert -f qcow2 -O raw out want"
	for name, script := range map[string]string{
		"raw":         "qemu-img create -q -f qcow2 -b raw -F raw out" + change,
		"qcow2":       "qemu-img convert -c -O qcow2 raw base; qemu-img create -q -f qcow2 -b base -F qcow2 out" + change,
		"by its path": "qemu-img convert -O qcow2 raw base; qemu-img create -q -f qcow2 -b $PWD/base -F qcow2 out" + change,
		"in parts": "qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k -b raw -F raw out; " +
			"qemu-io -c 'write -P 7 100k 3k' -c 'write -z 1M 2k' out >&2; qemu-img convert -f qcow2 -O raw out want",
		"longer than below": "qemu-img create -q -f qcow2 -b raw -F raw out 5M" + change,
		"shorter than below": "qemu-img create -q -f qcow2 -b raw -F raw out 2M; " +
			"qemu-io -c 'write -P 7 0 1k' out >&2; qemu-img convert -f qcow2 -O raw out want",
		"three": "qemu-img create -q -f qcow2 -b raw -F raw one; qemu-io -c 'write -P 9 64k 512' one >&2; " +
			"qemu-img create -q -f qcow2 -b one -F qcow2 two; qemu-img create -q -f qcow2 -b two -F qcow2 out" + change,
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t, script)
			i, err := open(t, filepath.Join(dir, "out"), beside(filepath.Join(dir, "out")))
			if err != nil {
				t.Fatal(err)
			}
			if !i.Backed {
				t.Error("it is not said that other files are part of it")
			}
			same(t, i, filepath.Join(dir, "want"), false)
		})
	}
	for name, script := range map[string]string{
		"outside":      "mkdir sub; qemu-img create -q -f qcow2 -u -b ../raw -F raw sub/out 1M",
		"by a link":    "mkdir sub; ln -s ../raw sub/raw; qemu-img create -q -f qcow2 -u -b raw -F raw sub/out 1M",
		"by its path":  "qemu-img create -q -f qcow2 -u -b /etc/hostname -F raw out 1M",
		"a pipe":       "mkfifo pipe; qemu-img create -q -f qcow2 -u -b pipe -F raw out 1M",
		"a protocol":   "qemu-img create -q -f qcow2 -u -b nbd:unix:raw -F raw out 1M",
		"itself":       "qemu-img create -q -f qcow2 -u -b x -F qcow2 out 1M; ln -s out x",
		"in gzip":      "qemu-img create -q -f qcow2 -u -b raw -F raw x 1M; gzip -c x > out",
		"another sort": "qemu-img convert -O vmdk raw base; qemu-img create -q -f qcow2 -u -b base -F vmdk out 1M",
	} {
		t.Run("not "+name, func(t *testing.T) {
			dir := made(t, script)
			out := filepath.Join(dir, "out")
			if name == "outside" || name == "by a link" {
				out = filepath.Join(dir, "sub", "out")
			}
			_, err := open(t, out, beside(out))
			if fault.Of(err) != fault.Image {
				t.Errorf("Open = %v, of class %q", err, fault.Of(err))
			}
		})
	}
}

// TestNoRoom: what is to be written is asked for before.
func TestNoRoom(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	full := errors.New("full")
	for name, script := range map[string]string{
		"qcow2": "qemu-img convert -c -O qcow2 raw out",
		"gzip":  "truncate -s 300M raw; gzip -1c raw > out",
		"vdi":   "qemu-img convert -O vdi raw out",
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t, script)
			o := allow()
			o.Room = func(n int64) error {
				if n < 1<<20 {
					t.Errorf("asked for %d bytes", n)
				}
				return full
			}
			if _, err := open(t, filepath.Join(dir, "out"), o); !errors.Is(err, full) {
				t.Errorf("Open = %v", err)
			}
		})
	}
}

// TestInterrupted: every reader hears the end of its context.
func TestInterrupted(t *testing.T) {
	fixtures.Require(t, fixtures.Tools)
	cause := errors.New("enough")
	for name, script := range map[string]string{
		"qcow2": "qemu-img convert -c -O qcow2 raw out",
		"gzip":  "gzip -1c raw > out",
		"vdi":   "qemu-img convert -O vdi raw out",
	} {
		t.Run(name, func(t *testing.T) {
			dir := made(t, script)
			f, err := os.Open(filepath.Join(dir, "out"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(cause)
			if _, err := Open(ctx, f, t.TempDir(), allow()); !errors.Is(err, cause) {
				t.Errorf("Open = %v, want the cause", err)
			}
		})
	}
}
