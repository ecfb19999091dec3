package etc_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/imgmut/imgmut/mutate/etc"
)

func line(what, place, kind string, options ...string) etc.Mount {
	return etc.Mount{What: what, Place: place, FS: kind, Options: options}
}

func TestParseFstab(t *testing.T) {
	for _, tc := range []struct {
		name, in string
		want     []etc.Mount
	}{
		{"empty", "", nil},
		{"comments and blank lines", "# a\n\n   \n \t# UUID=x / ext4\n", nil},
		{"lines that are none before one that is", "# a\n\nUUID=y\nLABEL=x /x xfs\n",
			[]etc.Mount{line("LABEL=x", "/x", "xfs")}},
		{"all fields", "UUID=x / ext4 errors=remount-ro,noatime 0 1\n",
			[]etc.Mount{line("UUID=x", "/", "ext4", "errors=remount-ro", "noatime")}},
		{"no options", "LABEL=x\t/x   xfs", []etc.Mount{line("LABEL=x", "/x", "xfs")}},
		{"line ends of Windows", "LABEL=x /x xfs ro\r\nLABEL=y /y xfs ro\r\n",
			[]etc.Mount{line("LABEL=x", "/x", "xfs", "ro"), line("LABEL=y", "/y", "xfs", "ro")}},
		{"white space in a path", `LABEL=x /my\040disk\011\134040 ext4`,
			[]etc.Mount{line("LABEL=x", "/my disk\t\\040", "ext4")}},
		{"escapes in what is mounted", `PARTUUID=a\055b\040c /x xfs`, []etc.Mount{line("PARTUUID=a-b c", "/x", "xfs")}},
		{"no octal number", `LABEL=x /a\777\08\ ext4`, []etc.Mount{line("LABEL=x", `/a\777\08\`, "ext4")}},
		{"no type", "UUID=x /\nUUID=y\n", []etc.Mount{line("UUID=x", "/", "")}},
		{"white space that is none", "LABEL=x /a\u00a0b\vc ext4", []etc.Mount{line("LABEL=x", "/a\u00a0b\vc", "ext4")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, etc.ParseFstab(tc.in)); diff != "" {
				t.Errorf("ParseFstab (-want +got):\n%s", diff)
			}
		})
	}
}

func TestMountHas(t *testing.T) {
	m := etc.Mount{Options: []string{"nofail", "x-systemd.device-timeout=5"}}
	for option, want := range map[string]bool{"nofail": true, "fail": false, "noauto": false, "": false} {
		if m.Has(option) != want {
			t.Errorf("Has(%q) = %t", option, !want)
		}
	}
}

func TestParseOSRelease(t *testing.T) {
	const text = "# ID=comment\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\r\nID=debian\n VERSION_ID='12'\n" +
		"EMPTY=\nURL=\"https://a/?b=c\"\nnoise\n"
	want := map[string]string{
		"PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)", "ID": "debian", "VERSION_ID": "12",
		"EMPTY": "", "URL": "https://a/?b=c",
	}
	if diff := cmp.Diff(want, etc.ParseOSRelease(text)); diff != "" {
		t.Errorf("ParseOSRelease (-want +got):\n%s", diff)
	}
}
