package etc_test

import (
	"io/fs"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/imgmut/imgmut/mutate/etc"
)

// noDevices is a tree as a mount without devices shows it: what is neither a file nor a
// directory is not to be opened.
type noDevices struct{ fstest.MapFS }

func (n noDevices) Open(name string) (fs.File, error) {
	if f := n.MapFS[name]; f != nil && f.Mode&fs.ModeSymlink == 0 && !f.Mode.IsRegular() && !f.Mode.IsDir() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: syscall.EACCES}
	}
	return n.MapFS.Open(name)
}

// TestMountsOfWhatIsNoFile: a device, a pipe or a socket has no text, and no names, to
// whatever it is that leads there; and what is below /dev in the tree is not what is
// there when the system starts.
func TestMountsOfWhatIsNoFile(t *testing.T) {
	const srv = "/srv UUID=a ext4  /etc/fstab:1 starts needed"
	for name, tc := range map[string]struct {
		files map[string]string
		want  string
	}{
		"a masked timer":             {map[string]string{"e/x.timer": "-> /dev/null"}, srv},
		"a masked mount":             {map[string]string{"e/srv.mount": "-> /dev/null"}, ""},
		"so by a link of a link":     {map[string]string{"e/srv.mount": "-> /etc/none", "etc/none": "-> ../dev/null"}, ""},
		"a unit of zeros":            {map[string]string{"e/srv.mount": "-> /dev/zero"}, ""},
		"a unit that is no mask":     {map[string]string{"e/srv.mount": "-> /dev/text"}, ""},
		"a unit of a socket":         {map[string]string{"e/srv.mount": "-> /opt/socket"}, ""},
		"a drop-in of zeros":         {map[string]string{"e/srv.mount.d/x.conf": "-> /dev/zero"}, srv},
		"a directory of units":       {map[string]string{"etc/systemd/system.control": "-> /dev/zero"}, srv},
		"an fstab of zeros":          {map[string]string{"etc/fstab": "-> /dev/zero"}, ""},
		"an fstab of a socket":       {map[string]string{"etc/fstab": "-> /opt/socket"}, ""},
		"an fstab of a block device": {map[string]string{"etc/fstab": "-> /opt/disk"}, ""},
		"an fstab of a pipe":         {map[string]string{"etc/fstab": "-> /opt/pipe"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tree := image(map[string]string{
				"etc/fstab": "UUID=a /srv ext4\n", "u/local-fs.target": "[Unit]\n", "dev/text": mount("/srv"),
				"u/x.timer": "[Unit]\n", "u/local-fs.target.wants/x.timer": "-> ../x.timer",
			})
			for place, mode := range map[string]fs.FileMode{
				"dev/null": fs.ModeDevice | fs.ModeCharDevice, "dev/zero": fs.ModeDevice | fs.ModeCharDevice,
				"opt/disk": fs.ModeDevice, "opt/socket": fs.ModeSocket, "opt/pipe": fs.ModeNamedPipe,
			} {
				tree[place] = &fstest.MapFile{Mode: mode | 0o666}
			}
			for name, f := range image(tc.files) {
				tree[name] = f
			}
			if got := strings.TrimSpace(mounts(t, noDevices{tree})); got != tc.want {
				t.Errorf("mounts:\n%s\nwant %q", got, tc.want)
			}
		})
	}
	if text := etc.Read(noDevices{fstest.MapFS{"x": {Mode: fs.ModeSocket}}}, "x"); text != "" {
		t.Errorf("a socket reads %q", text)
	}
}
