package etc_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/etc"
)

// generators are what reads the kernel's command line for mounts.
var generators = []string{"systemd-fstab-generator", "systemd-debug-generator"}

// generatedFor runs the generators of a machine, which is a directory, on the tree's fstab and a
// command line, and gives where their units are: those that are used before and after others,
// and between.
func generatedFor(t *testing.T, machine, root, line string) (normal, early, late string) {
	t.Helper()
	normal, early, late = filepath.Join(root, "g/normal"), filepath.Join(root, "g/early"), filepath.Join(root, "g/late")
	for _, dir := range []string{normal, early, late} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var command []string
	if machine != "/" { // its programs, with its libraries
		loaders, err := filepath.Glob(machine + "/usr/lib*/ld-linux-*.so.*")
		libraries, libErr := filepath.Glob(machine + "/usr/lib/*-linux-gnu")
		if err != nil || libErr != nil || len(loaders) == 0 || len(libraries) == 0 {
			t.Fatal("no loader of programs: ", err, libErr)
		}
		command = []string{loaders[0], "--library-path", libraries[0] + ":" + libraries[0] + "/systemd"}
	}
	for _, generator := range generators {
		argv := append(slices.Clone(command), filepath.Join(machine, "usr/lib/systemd/system-generators", generator), normal, early, late)
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = []string{
			"SYSTEMD_FSTAB=" + filepath.Join(root, "etc/fstab"), "SYSTEMD_SYSFS_CHECK=0", "SYSTEMD_IN_INITRD=0",
			"SYSTEMD_PROC_CMDLINE=" + line,
		}
		cmd.Dir = "/"
		_ = cmd.Run() // it fails for words that it cannot use, after it made the others
	}
	return normal, early, late
}

// asOf is the files of a tree whose systemd is of a version.
func asOf(version int, files map[string]string) map[string]string {
	all := maps.Clone(base)
	maps.Copy(all, files)
	all["usr/lib/systemd/libsystemd-shared-"+strconv.Itoa(version)+".so"] = ""
	return all
}

// TestStartsByTheKernelsWords: the same mounts start as systemd says, by the command line.
func TestStartsByTheKernelsWords(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	version := etc.SystemdVersion(os.DirFS("/"))
	files := map[string]string{
		"etc/fstab": "UUID=a /a ext4\nUUID=b /b ext4 noauto\n", "u/srv.mount": mount("/srv"),
		"e/local-fs.target.wants/srv.mount": "-> x", "u/opt.mount": mount("/opt"), "real/x": "",
	}
	for _, tc := range []struct {
		name, line string
		more       map[string]string
	}{
		{"nothing", "root=UUID=x ro quiet", nil},
		{"no fstab", "fstab=no", nil},
		{"no fstab, and it again", "fstab=0 fstab=yes", nil},
		{"no fstab, in other words", "fstab=OFF fstab=nonsense", nil},
		{"fstab, without a word", "fstab=no fstab", nil},
		{"no fstab, for the initrd", "rd.fstab=no", nil},
		{"a mask", "systemd.mask=srv.mount", nil},
		{"a mask of a path", "systemd.mask=/srv", nil},
		{"a mask of what is required", "systemd.mask=a.mount", nil},
		{"a mask of another", "systemd.mask=srv systemd.mask=none.service", nil},
		{"a mask above /etc", "systemd.mask=srv.mount", map[string]string{"e/srv.mount": mount("/srv")}},
		{"a mask for the initrd", "rd.systemd.mask=srv.mount", nil},
		{"wanted", "systemd.wants=opt.mount", nil},
		{"wanted by its path, quoted", `"systemd.wants=/b"`, nil},
		{"wanted, and masked", "systemd.wants=opt.mount systemd.mask=opt.mount", nil},
		{"volatile state", "systemd.volatile=state", nil},
		{"no longer", "systemd.volatile=state systemd.volatile=no", nil},
		{"still", "systemd.volatile=state systemd.volatile=nonsense", nil},
		{"volatile, by the initrd", "systemd.volatile=overlay", nil},
		{"volatile state below fstab", "systemd.volatile=state", map[string]string{"etc/fstab": "UUID=a /var ext4 noauto\n"}},
		{"volatile state below a unit", "systemd.volatile=state", map[string]string{"etc/fstab": "", "u/var.mount": mount("/no")}},
		{"volatile state, masked", "systemd.volatile=state systemd.mask=var.mount", map[string]string{"etc/fstab": ""}},
		{"another mount", "systemd.mount-extra=UUID=x:/x:ext4", nil}, // or not, by the version
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := asOf(version, files)
			maps.Copy(all, tc.more)
			root := tree(t, all)
			normal, early, late := generatedFor(t, "/", root, tc.line)
			list, err := etc.Mounts(os.DirFS(root), tc.line)
			if err != nil {
				t.Fatal(err)
			}
			want := started(t, early, root+"/etc/systemd/system", normal, root+"/usr/lib/systemd/system", late)
			if diff := cmp.Diff(want, unitNames(t, list), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("mounts that start (-systemd +Mounts):\n%s", diff)
			}
		})
	}
}

// TestMountExtraAsGenerated: of each mount on the command line a newer systemd makes a unit of the
// same place, type and options.
func TestMountExtraAsGenerated(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd, fixtures.Images)
	machine := fixtures.HostTree(t)
	version := etc.SystemdVersion(os.DirFS(machine))
	for _, line := range []string{
		"systemd.mount-extra=UUID=x:/srv:ext4:noatime,nofail systemd.mount-extra=LABEL=y:/two",
		`systemd.mount-extra="LABEL=my disk:/my\x20disk" systemd.mount-extra='a:/q q::ro'`,
		`systemd.mount-extra=/dev/x\072y:/e: systemd.mount-extra=z:/my\u00e9disk\s:xfs: systemd.mount-extra=a\:b:/no systemd.mount-extra=a:/\q`,
		"systemd.mount-extra=a:b systemd.mount-extra=a:/b:c:d:e systemd.mount-extra=none:none systemd.mount-extra=a systemd.mount-extra",
		"systemd.mount-extra=a:/one systemd.mount-extra=b:/one:xfs systemd.mount-extra=b:/fstab:xfs",
		"systemd.mount_extra=a:/one rd.systemd.mount-extra=a:/two systemd.swap-extra=/dev/sda5",
		"fstab=no systemd.mount-extra=b:/fstab:xfs systemd.mount-extra=c:none:swap systemd.mount-extra=c:/c:swap",
		"systemd.volatile=state systemd.mount-extra=/a:/b:none:bind,x-systemd.automount",
		"systemd.volatile=state systemd.mount-extra=LABEL=var:/var:btrfs",
	} {
		root := tree(t, asOf(version, map[string]string{"etc/fstab": "UUID=a /fstab ext4\n"}))
		normal, _, late := generatedFor(t, machine, root, line)
		var want, got []string
		made, err := filepath.Glob(normal + "/*.mount")
		if err != nil {
			t.Fatal(err)
		}
		if len(unitsOf(t, normal+"/var.mount")) == 0 {
			made = append(made, late+"/var.mount")
		}
		for _, unit := range made {
			want = append(want, unitsOf(t, unit)...)
		}
		list, err := etc.Mounts(os.DirFS(root), line)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			options, _, _ := strings.Cut(strings.Join(m.Options, ","), ",size=") // how large it may be is none of ours
			got = append(got, m.Place+" "+m.FS+" "+options)
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: mounts (-generator +Mounts):\n%s", line, diff)
		}
		early, err := etc.Mounts(os.DirFS(tree(t, asOf(253, nil))), line)
		if err != nil || slices.ContainsFunc(early, func(m etc.Mount) bool { return m.Place != "/var" }) {
			t.Errorf("%s: systemd 253 mounts %+v, %v", line, early, err)
		}
	}
}

// unitsOf gives place, type and options of a unit that a generator made, if there is one.
func unitsOf(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]string{}
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		set[key] = strings.ReplaceAll(value, "%%", "%")
	}
	options, _, _ := strings.Cut(set["Options"], ",size=")
	return []string{set["Where"] + " " + set["Type"] + " " + options}
}
