package step

import "testing"

// args are what the tables below change.
var args = KernelArgs{Add: []string{"made=1", "rw"}, Remove: []string{"quiet", "console=tty0", "splash"}, Set: []string{"panic=9"}}

func TestEditCommandLine(t *testing.T) {
	for line, want := range map[string]string{
		"":                                   "panic=9 made=1 rw",
		"root=UUID=x ro quiet":               "root=UUID=x ro panic=9 made=1 rw",
		"root=UUID=x  panic=1  rw panic=2 a": "root=UUID=x panic=9 rw a made=1",
		"console=tty0 console=ttyS0 quiet":   "console=ttyS0 panic=9 made=1 rw",
		"splash=silent quietly quiet=1":      "quietly panic=9 made=1 rw",
		"$kernelopts made=1 -- single quiet": "$kernelopts made=1 panic=9 rw -- single quiet",
		"root=x panic":                       "root=x panic=9 made=1 rw",
		"panic=9 made=1 rw root=UUID=y":      "panic=9 made=1 rw root=UUID=y",
	} {
		got := args.edit(line)
		if got != want {
			t.Errorf("%q becomes %q, want %q", line, got, want)
		}
		if again := args.edit(got); again != got {
			t.Errorf("%q becomes %q the second time", got, again)
		}
		if wrong := args.done(got); wrong != "" {
			t.Errorf("%q %s", got, wrong)
		}
	}
	for line, want := range map[string]string{
		"root=x panic=9 made=1 rw quiet": "still has quiet", "root=x panic=9 made=1": "has no rw", "": "has no made=1",
	} {
		if got := args.done(line); got != want {
			t.Errorf("%q %s, want %s", line, got, want)
		}
	}
	both := KernelArgs{Remove: []string{"console"}, Add: []string{"console=ttyS0"}}
	if got := both.edit("console=tty0 a console=hvc0"); got != "a console=ttyS0" || both.done(got) != "" {
		t.Errorf("to remove all of a name and add one: %q, %s", got, both.done(got))
	}
}

func TestEditFiles(t *testing.T) {
	for _, tc := range []struct {
		name      string
		edit      func(string) (string, error)
		was, want string
	}{
		{"an entry", args.editEntry, "title x\nlinux /l\noptions  root=x quiet\ninitrd /i\n",
			"title x\nlinux /l\noptions root=x panic=9 made=1 rw\ninitrd /i\n"},
		{"an entry with several lines", args.editEntry, "options root=x\nlinux /l\noptions quiet a\n",
			"options root=x a panic=9 made=1 rw\nlinux /l\n"},
		{"an entry without", args.editEntry, "linux /l", "linux /l\noptions panic=9 made=1 rw\n"},
		{"an entry of ostree", args.editEntry, "version 1\noptions root=UUID=x rw ostree=/ostree/boot.1/d/c/0\nlinux /l\n",
			"version 1\noptions root=UUID=x rw ostree=/ostree/boot.1/d/c/0 panic=9 made=1\nlinux /l\n"},
		{"a line", args.editLine, "root=x quiet", "root=x panic=9 made=1 rw\n"},
		{"extlinux", args.editExtlinux, "DEFAULT a\nLABEL a\n  LINUX /l\n  APPEND root=x quiet\nLABEL b\n\tkernel /m\nLABEL c\n  KERNEL menu.c32",
			"DEFAULT a\nLABEL a\n  LINUX /l\n  APPEND root=x panic=9 made=1 rw\n" +
				"LABEL b\n\tkernel /m\n\tappend panic=9 made=1 rw\nLABEL c\n  KERNEL menu.c32\n"},
	} {
		got, err := tc.edit(tc.was)
		if err != nil || got != tc.want {
			t.Errorf("%s:\n%s%v, want\n%s", tc.name, got, err, tc.want)
		}
		if again, err := tc.edit(got); err != nil || again != got {
			t.Errorf("%s changes the second time:\n%s%v", tc.name, again, err)
		}
	}
}

func TestEditDefaults(t *testing.T) {
	const words = "panic=9 made=1 rw"
	for _, tc := range []struct {
		name, was, want string
		last            bool
	}{
		{"both", "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet splash\"\nGRUB_CMDLINE_LINUX=\"\"\n",
			"GRUB_CMDLINE_LINUX_DEFAULT=\"\"\nGRUB_CMDLINE_LINUX=\"" + words + "\"\n", true},
		{"single quotes and a comment", "GRUB_CMDLINE_LINUX='a quiet' # why\n", "GRUB_CMDLINE_LINUX=\"a " + words + "\" # why\n", true},
		{"no quotes", "GRUB_CMDLINE_LINUX=quiet\n", "GRUB_CMDLINE_LINUX=\"" + words + "\"\n", true},
		{"a variable in it", "GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX b\"\n",
			"GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX b " + words + "\"\n", true},
		{"none", "GRUB_TIMEOUT=1", "GRUB_TIMEOUT=1\nGRUB_CMDLINE_LINUX=\"" + words + "\"\n", true},
		{"none, and another file has it", "GRUB_TIMEOUT=1\n", "GRUB_TIMEOUT=1\n", false},
		{"arguments of init", "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet a -- splash panic=1\"\n",
			"GRUB_CMDLINE_LINUX_DEFAULT=\"a -- splash panic=1\"\n", false},
		{"set in a file before", "GRUB_CMDLINE_LINUX=\"panic=1 a\"\n", "GRUB_CMDLINE_LINUX=\"a\"\n", false},
		{"nothing to change", "# GRUB_CMDLINE_LINUX=quiet\nGRUB_CMDLINE_LINUX=\"" + words + "\"\n",
			"# GRUB_CMDLINE_LINUX=quiet\nGRUB_CMDLINE_LINUX=\"" + words + "\"\n", true},
		{"the last counts", "GRUB_CMDLINE_LINUX=a\nGRUB_CMDLINE_LINUX=b\n",
			"GRUB_CMDLINE_LINUX=a\nGRUB_CMDLINE_LINUX=\"b " + words + "\"\n", true},
	} {
		got, err := args.editDefault(tc.was, tc.last)
		if err != nil || got != tc.want {
			t.Errorf("%s:\n%s%v, want\n%s", tc.name, got, err, tc.want)
		}
	}
	for _, text := range []string{"GRUB_CMDLINE_LINUX=\"a\n b\"\n", "GRUB_CMDLINE_LINUX=\"a\"\"b\"\n", "GRUB_CMDLINE_LINUX='$(x)'\n",
		"GRUB_CMDLINE_LINUX=a; export X\n", "GRUB_CMDLINE_LINUX='a\n"} {
		if got, err := args.editDefault(text, true); err == nil {
			t.Errorf("%q is changed to %q", text, got)
		}
	}
}
