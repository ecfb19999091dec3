package boot

import (
	"fmt"
	"path"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"
)

// tree makes a tree of paths and texts.
func tree(files map[string]string) fstest.MapFS {
	t := fstest.MapFS{}
	for name, text := range files {
		t[name] = mapFile(name, text)
	}
	return t
}

var (
	kernelLike = regexp.MustCompile(`^(vmlinu[xz].*|kernel.*|linux.*|b?z?[Ii]mage.*)$`)
	initrdLike = regexp.MustCompile(`^(initr.*|ucode.*)$`)
)

// mapFile is a file, which begins as a kernel or an initrd does if it is called so.
func mapFile(name, text string) *fstest.MapFile {
	switch base := path.Base(name); {
	case text == "" || strings.HasPrefix(text, "!"): // which stands for another beginning
		text = strings.TrimPrefix(text, "!")
	case kernelLike.MatchString(base):
		text = "MZ" + text
	case initrdLike.MatchString(base):
		text = "070701" + text
	}
	return &fstest.MapFile{Data: []byte(text), Mode: 0o755}
}

const grubCfg = `if [ "${next_entry}" ] ; then
   set default="${next_entry}"
else
   set default="0"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
  fi
}
# linux /vmlinuz a comment
menuentry 'Debian GNU/Linux' --class debian $menuentry_id_option 'gnulinux-simple-1234' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; fi
	search --no-floppy --fs-uuid --set=root 1234
	linux	/boot/vmlinuz-6.1.0-13 root=UUID=1234 ro  quiet "console=ttyS0,115200"
	initrd	/boot/initrd.img-6.1.0-13
}
submenu 'Advanced options' $menuentry_id_option 'gnulinux-advanced-1234' {
	menuentry 'Debian, with Linux 6.1.0-12' {
		linux	/boot/vmlinuz-6.1.0-12 root=UUID=1234 ro older
	}
}
menuentry "Last one" --id last {
	linuxefi /vmlinuz root=/dev/vda2 $tuned ${kernelopts} rw
}
`

// standard is what grubCfg starts if nothing else is asked for.
const standard = "root=UUID=1234 ro quiet console=ttyS0,115200"

func TestCommandLine(t *testing.T) {
	for _, tc := range []struct {
		name  string
		trees []map[string]string
		want  string
	}{
		{"nothing", []map[string]string{{}}, ""},
		{"for new entries", []map[string]string{{
			"etc/kernel/cmdline": "root=UUID=1 ro\n", "boot/loader/entries/a.conf": "options root=UUID=2\n",
		}}, "root=UUID=1 ro"},
		{"several lines", []map[string]string{{"etc/kernel/cmdline": "root=UUID=1\n\tro\x00 quiet\n\n"}},
			"root=UUID=1 ro quiet"},
		{"not that of a directory", []map[string]string{{
			"etc/kernel/cmdline/file": "x", "boot/grub/grub.cfg": grubCfg,
		}}, standard},
		{"an entry in the ESP", []map[string]string{{}, {
			"loader/loader.conf":         "timeout 0\ndefault debian.conf\n",
			"loader/entries/debian.conf": "title x\nlinux /debian/vmlinuz\noptions root=PARTUUID=1 ro\noptions console=ttyS0\n",
			"loader/entries/zzz.conf":    "version 9\noptions wrong",
		}}, "root=PARTUUID=1 ro console=ttyS0"},
		{"the default is a pattern", []map[string]string{{
			"efi/loader/loader.conf":           "default arch-*\n",
			"efi/loader/entries/arch-lts.conf": "options right\n", "efi/loader/entries/z.conf": "options wrong\n",
		}}, "right"},
		{"the newest kernel", []map[string]string{{
			"boot/loader/entries/id-0-rescue.conf": "version 0-rescue-id\noptions wrong\n",
			"boot/loader/entries/id-6.9.conf":      "version 6.9.12-200\noptions older\n",
			"boot/loader/entries/id-6.10.conf":     "version 6.10.3-200\noptions root=UUID=1 rw\n",
		}}, "root=UUID=1 rw"},
		{"the saved one, with GRUB's variables", []map[string]string{{
			"boot/grub2/grubenv":               "# GRUB Environment Block\nsaved_entry=id-6.9\nkernelopts=root=UUID=7 ro \n###",
			"boot/loader/entries/id-6.9.conf":  "version 6.9\noptions $kernelopts $tuned_params quiet\n",
			"boot/loader/entries/id-6.10.conf": "version 6.10\noptions wrong\n",
		}}, "root=UUID=7 ro quiet"},
		{"an entry without options", []map[string]string{{
			"boot/loader/entries/a.conf": "linux /vmlinuz\n", "boot/grub/grub.cfg": grubCfg,
		}}, standard},
		{"GRUB on a volume for /boot", []map[string]string{{}, {"grub2/grub.cfg": grubCfg}}, standard},
		{"GRUB's default by number", []map[string]string{{"boot/grub/grub.cfg": grubCfg + "set default=2\n"}},
			"root=/dev/vda2 rw"},
		{"by id", []map[string]string{{"boot/grub/grub.cfg": grubCfg + "set default=last\n"}}, "root=/dev/vda2 rw"},
		{"by title", []map[string]string{{"boot/grub/grub.cfg": grubCfg + "set default='Last one'\n"}}, "root=/dev/vda2 rw"},
		{"in a submenu", []map[string]string{{
			"boot/grub/grub.cfg": grubCfg + "set default='gnulinux-advanced-1234>x'\n",
		}}, "root=UUID=1234 ro older"},
		{"out of range", []map[string]string{{"boot/grub/grub.cfg": grubCfg + "set default=7\n"}}, standard},
		{"saved by GRUB", []map[string]string{{
			"boot/grub/grub.cfg": "set default=\"${saved_entry}\"\n" +
				"menuentry a {\nlinux /v wrong\n}\nmenuentry b {\nlinux /v right\n}\n",
			"boot/grub/grubenv": "saved_entry=1\n",
		}}, "right"},
		{"longer than a kernel takes", []map[string]string{{"etc/kernel/cmdline": strings.Repeat("x", 5000)}}, ""},
		{"no text", []map[string]string{{"etc/kernel/cmdline": "ro \xff\xfe quiet"}}, "ro quiet"},
		{"braces that do not match", []map[string]string{{"boot/grub/grub.cfg": "}\n}\nmenuentry 'a {\n{\nlinux"}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := commandLineOf(tc.trees...)
			if got != tc.want {
				t.Errorf("CommandLine = %q, want %q", got, tc.want)
			}
		})
	}
}

// TestNoDirectoryOfEntries: a directory is not read to its end to learn that it
// is none of a boot loader's.
func TestNoDirectoryOfEntries(t *testing.T) {
	files := map[string]string{}
	for i := range maxEntries {
		files[fmt.Sprintf("boot/loader/entries/%03d.conf", i)] = "options ro\n"
	}
	if got := commandLineOf(files); got != "ro" {
		t.Errorf("CommandLine = %q of as many entries as are looked at", got)
	}
	files["boot/loader/entries/more.conf"] = "options ro\n"
	if got := commandLineOf(files); got != "" {
		t.Errorf("CommandLine = %q of one entry more", got)
	}
}

// TestCostOfHostileFiles: files that are made to be costly are read at a cost
// that grows as they do.
func TestCostOfHostileFiles(t *testing.T) {
	lines := strings.Repeat("options aaaaaaaaaaa\n", maxFile/len("options aaaaaaaaaaa\n"))
	variables := strings.Repeat("$a ", maxCommandLine/len("$a "))
	for _, tc := range []struct {
		name  string
		files map[string]string
	}{
		{"an entry of many lines", map[string]string{"boot/loader/entries/a.conf": lines}},
		{"large entries", map[string]string{"boot/loader/entries/a.conf": "options ro\n" + lines[:maxFile/2],
			"boot/loader/entries/b.conf": lines[:maxFile/2], "boot/loader/entries/c.conf": "options ro\nversion 1\n"}},
		{"a variable named many times", map[string]string{"boot/loader/entries/a.conf": "options " + variables,
			"boot/grub/grubenv": "a=" + strings.Repeat("x", maxFile-2)}},
		{"a variable named many times in GRUB's file", map[string]string{
			"boot/grub/grub.cfg": "menuentry a {\nlinux /v " + variables + "\n}\n",
			"boot/grub/grubenv":  "a=" + strings.Repeat("x", maxFile-2)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			line := commandLineOf(tc.files)
			runtime.ReadMemStats(&after)
			if line != "" {
				t.Errorf("CommandLine has %d bytes", len(line))
			}
			if used := after.TotalAlloc - before.TotalAlloc; used > 256<<20 {
				t.Errorf("it took %d MiB", used>>20)
			}
		})
	}
}

func commandLineOf(files ...map[string]string) string {
	switch len(files) {
	case 1:
		return CommandLine(tree(files[0]))
	default:
		return CommandLine(tree(files[0]), tree(files[1]))
	}
}

// FuzzCommandLine: whatever the files hold, what comes out is one line that a
// kernel can take.
func FuzzCommandLine(f *testing.F) {
	f.Add(grubCfg, "saved_entry=1\n", "version 1\noptions root=x $kernelopts\n", "default *\n", "")
	f.Add("menuentry 'a' {\nlinux /v ro\n}\n", "", "", "", "root=1\n")
	f.Fuzz(func(t *testing.T, cfg, environment, entry, loader, cmdline string) {
		line := commandLineOf(map[string]string{
			"boot/grub/grub.cfg": cfg, "boot/grub/grubenv": environment, "boot/loader/entries/a.conf": entry,
			"boot/loader/entries/b-10.conf": entry + "\nversion 10", "boot/loader/loader.conf": loader,
			"etc/kernel/cmdline": cmdline,
		})
		if len(line) > maxCommandLine || strings.ContainsAny(line, "\n\x00\t") ||
			!utf8.ValidString(line) || strings.TrimSpace(line) != line {
			t.Errorf("CommandLine = %q", line)
		}
	})
}
