package etc_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/imgmut/imgmut/fixtures"
	"github.com/imgmut/imgmut/mutate/etc"
)

const fstabGenerator = "/usr/lib/systemd/system-generators/systemd-fstab-generator"

// tree is a directory that systemd itself can be asked about: it runs without
// privilege there, and reads units below the directory alone. Links in it have to be
// relative.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	root := write(t, files)
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

// generated runs systemd-fstab-generator on the tree's fstab, and gives where its units are.
func generated(t *testing.T, root string) string {
	t.Helper()
	dir := filepath.Join(root, "generated")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/fstab")); err != nil {
		return dir
	}
	cmd := exec.Command(fstabGenerator, dir, dir, dir)
	cmd.Env = []string{
		"SYSTEMD_FSTAB=" + filepath.Join(root, "etc/fstab"), "SYSTEMD_SYSFS_CHECK=0", "SYSTEMD_PROC_CMDLINE=", "SYSTEMD_IN_INITRD=0",
	}
	cmd.Dir = "/"
	_ = cmd.Run() // it fails for lines that it cannot use, after it made the others
	return dir
}

var startJob = regexp.MustCompile(`Action: ([^-]\S*\.mount) -> start\n`)

// started gives the mount units that systemd would start with default.target.
func started(t *testing.T, unitPath ...string) []string {
	t.Helper()
	cmd := exec.Command("/usr/lib/systemd/systemd", "--test", "--system", "--unit=default.target")
	cmd.Env = []string{"SYSTEMD_UNIT_PATH=" + strings.Join(unitPath, ":"), "XDG_RUNTIME_DIR=/tmp", "SYSTEMD_LOG_TARGET=console"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("systemd --test: %v\n%s", err, out)
	}
	units := map[string]bool{}
	for _, m := range startJob.FindAllStringSubmatch(string(out), -1) {
		units[m[1]] = true
	}
	return slices.Sorted(maps.Keys(units))
}

// unitNames names the mounts that start as systemd-escape does.
func unitNames(t *testing.T, mounts []etc.Mount) []string {
	t.Helper()
	var places []string
	for _, m := range mounts {
		if m.Starts && m.Place != "/" { // which has started already
			places = append(places, m.Place)
		}
	}
	if places == nil {
		return nil
	}
	out, err := exec.Command("systemd-escape", append([]string{"--path", "--suffix=mount", "--"}, places...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return slices.Sorted(slices.Values(strings.Fields(string(out))))
}

// TestThisMachine: of the machine that runs the test, systemd starts the same.
func TestThisMachine(t *testing.T) {
	fixtures.Require(t, fixtures.Root, fixtures.Systemd)
	mounts, err := etc.Mounts(os.DirFS("/"), "")
	if err != nil {
		t.Fatal(err)
	}
	root := tree(t, map[string]string{"etc/fstab": etc.Read(os.DirFS("/"), "etc/fstab")})
	want := started(t, "/etc/systemd/system", generated(t, root), "/usr/local/lib/systemd/system",
		"/lib/systemd/system", "/usr/lib/systemd/system")
	want = slices.DeleteFunc(want, func(name string) bool {
		fresh := regexp.MustCompile(`^(dev|proc|run|sys)[-.]`).MatchString(name)
		return fresh || name == "var-lib-machines.mount" // this one by a condition, which is no matter of jobs
	})
	if diff := cmp.Diff(want, unitNames(t, mounts), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("mounts that start (-systemd +Mounts):\n%s", diff)
	}
}

// base is the units that each start reaches.
var base = map[string]string{
	"e/default.target": "[Unit]\nDefaultDependencies=no\n" +
		"Wants=local-fs.target remote-fs.target sysinit.target basic.target\n",
	"u/local-fs.target":  "[Unit]\nDefaultDependencies=no\n",
	"u/remote-fs.target": "[Unit]\nDefaultDependencies=no\n",
	"u/sysinit.target":   "[Unit]\nDefaultDependencies=no\n",
	"u/basic.target":     "[Unit]\nDefaultDependencies=no\n",
}

// mount is a unit for a place.
func mount(place string) string { return "[Mount]\nWhat=tmpfs\nType=tmpfs\nWhere=" + place + "\n" }

// service is a unit that says one thing more.
func service(text string) string {
	return "[Unit]\nDefaultDependencies=no\n" + text + "\n[Service]\nExecStart=/bin/true\n"
}

// TestStartsAsSystemdSays: the same mounts start of small trees.
func TestStartsAsSystemdSays(t *testing.T) {
	wants := func(unit string) string { return "e/default.target.wants/" + unit }
	for name, files := range map[string]map[string]string{
		"nothing pulls in": {"e/srv.mount": mount("/srv")},
		"wants":            {"e/srv.mount": mount("/srv"), "u/local-fs.target.wants/srv.mount": "-> ../srv.mount"},
		"requires, of a unit below": {"u/srv.mount": mount("/srv"),
			"e/local-fs.target.requires/srv.mount": "-> ../srv.mount"},
		"upholds and binds": {"e/a.mount": mount("/a"),
			"e/b.mount":        mount("/b"),
			"e/c.mount":        mount("/c"),
			"e/d.mount":        mount("/d"),
			"e/x.service":      service("Upholds=a.mount\nBindsTo=b.mount\nRequisite=c.mount\nAfter=d.mount PartOf=d.mount"),
			wants("x.service"): "-> ../x.service"},
		"masked": {"u/srv.mount": mount("/srv"), "e/srv.mount": "-> ../../../dev/null", "dev/null": "",
			wants("srv.mount"): "-> ../srv.mount"},
		"empty":           {"u/srv.mount": mount("/srv"), "e/srv.mount": "", wants("srv.mount"): "-> ../srv.mount"},
		"a file in wants": {"u/srv.mount": mount("/srv"), wants("srv.mount"): "x"},
		"a link of wants that is masked": {"u/srv.mount": mount("/srv"),
			"u/local-fs.target.wants/srv.mount": "-> ../srv.mount",
			"e/local-fs.target.wants/srv.mount": "-> /dev/null"},
		"a link of another name": {"u/srv.mount": mount("/srv"),
			"u/a.mount":        mount("/a"),
			wants("srv.mount"): "-> ../a.mount"},
		"wrong name":        {"u/srv.mount": mount("/other"), wants("srv.mount"): "-> x"},
		"no place":          {"u/srv-a.mount": "[Mount]\nWhat=x\n", wants("srv-a.mount"): "-> x"},
		"nothing to mount":  {"u/srv.mount": "[Mount]\nWhere=/srv\n", wants("srv.mount"): "-> x"},
		"a place not clean": {"u/srv-a.mount": mount("//srv//a/"), wants("srv-a.mount"): "-> x"},
		"drop-ins": {"u/srv.mount": mount("/no"),
			"e/srv.mount.d/a.conf": "[Mount]\nWhere=/srv\n",
			wants("srv.mount"):     "-> x"},
		"drop-ins in order": {"u/srv.mount": mount("/srv"), "e/srv.mount.d/a.conf": "[Mount]\nWhere=/srv\n",
			"u/mount.d/b.conf": "[Mount]\nWhere=/b\n", wants("srv.mount"): "-> x"},
		"drop-ins of one name": {"u/srv-a-b.mount": mount("/srv/a/b"), "e/srv-.mount.d/b.conf": "[Mount]\nWhat=y\n",
			"u/srv-a-.mount.d/b.conf": "[Mount]\nWhere=/b\n", wants("srv-a-b.mount"): "-> x"},
		"a drop-in of a prefix": {"u/srv-a-b.mount": mount("/srv/a/b"), "e/srv-.mount.d/b.conf": "[Mount]\nWhere=/b\n",
			wants("srv-a-b.mount"): "-> x"},
		"a drop-in that is masked": {"u/srv.mount": mount("/srv"), "u/srv.mount.d/b.conf": "[Mount]\nWhere=/b\n",
			"e/srv.mount.d/b.conf": "-> /dev/null", wants("srv.mount"): "-> x"},
		"drop-ins alone": {"e/srv.mount.d/a.conf": mount("/srv"), wants("srv.mount"): "-> x"},
		"a directory that is linked": {"u/srv.mount": mount("/srv"), "e/some.d/a.conf": "[Mount]\nWhere=/no\n",
			"e/srv.mount.d": "-> some.d", wants("srv.mount"): "-> x"},
		"wants of an alias": {"u/srv.mount": mount("/srv"),
			"u/x.service":      service(""),
			"e/y.service":      "-> ../../../usr/lib/systemd/system/x.service",
			wants("x.service"): "-> x", "e/y.service.wants/srv.mount": "-> x"},
		"started by an alias": {"u/srv.mount": mount("/srv"),
			"u/x.service":      service("Wants=srv.mount"),
			"e/y.service":      "-> ../../../usr/lib/systemd/system/x.service",
			wants("y.service"): "-> x"},
		"a mount has no alias": {"u/srv.mount": mount("/srv"),
			"e/b.mount":      "-> ../../../usr/lib/systemd/system/srv.mount",
			wants("b.mount"): "-> x"},
		"a link to itself": {"u/srv.mount": mount("/srv"),
			"e/srv.mount":      "-> ../../../usr/lib/systemd/system/srv.mount",
			wants("srv.mount"): "-> x"},
		"a unit from elsewhere": {"opt/any": mount("/srv"),
			"e/srv.mount":      "-> ../../../opt/any",
			wants("srv.mount"): "-> x"},
		"a unit from nowhere": {"u/srv.mount": mount("/srv"),
			"e/srv.mount":      "-> ../../../opt/any",
			wants("srv.mount"): "-> x"},
		"links in a circle": {"u/srv.mount": mount("/srv"),
			"e/a.service":      "-> b.service",
			"e/b.service":      "-> a.service",
			wants("a.service"): "-> x"},
		"units in a circle": {"u/srv.mount": mount("/srv"),
			"e/a.service":      service("Wants=b.service"),
			"e/b.service":      service("Wants=a.service srv.mount"),
			wants("a.service"): "-> x"},
		"a directory in the place of a unit": {"u/srv.mount": mount("/srv"),
			"e/srv.mount/file": "",
			wants("srv.mount"): "-> x"},
		"a template": {"u/srv-x.mount": mount("/srv/x"),
			"u/x@.service":       service("Wants=srv-%i.mount"),
			wants("x@x.service"): "-> ../x@.service"},
		"a template that is linked": {"u/srv-x.mount": mount("/srv/x"), "u/x@.service": service("Wants=srv-%i.mount"),
			"e/y@.service": "-> ../../../usr/lib/systemd/system/x@.service", wants("y@x.service"): "-> ../x@.service"},
		"wants of a template": {"u/srv.mount": mount("/srv"),
			"u/x@.service":                 service(""),
			"e/x@.service.wants/srv.mount": "-> x",
			wants("x@a-b.service"):         "-> x"},
		"wants of a type": {"u/srv.mount": mount("/srv"),
			"u/x.service":               service(""),
			"e/service.wants/srv.mount": "-> x",
			wants("x.service"):          "-> x"},
		"paths": {"u/a.mount": mount("/a"),
			"u/a-b.mount":      mount("/a/b"),
			"u/a-b-c.mount":    mount("/a/b/c"),
			"u/ab.mount":       mount("/ab"),
			"u/q\\x20q.mount":  mount("/q q"),
			"u/x.service":      service(`RequiresMountsFor="/q q/x" /a/b/`),
			wants("x.service"): "-> x"},
		"paths of services": {"u/var-lib-a.mount": mount("/var/lib/a"),
			"u/var-log.mount":   mount("/var/log"),
			"u/var-cache.mount": mount("/var/cache"),
			"u/tmp.mount":       mount("/tmp"),
			"u/opt.mount":       mount("/opt"),
			"u/var-tmp.mount":   mount("/var/tmp"),
			"u/home.mount":      mount("/home"),
			"u/x.service": service("") + "StateDirectory=b a:c\nLogsDirectory=x\nLogsDirectory=\nPrivateTmp=yes\n" +
				"WorkingDirectory=/opt\nRootDirectory=/home\n",
			wants("x.service"): "-> x"},
		"paths of sockets": {"u/a.mount": mount("/a"),
			"u/b.mount":       mount("/b"),
			"u/c.mount":       mount("/c"),
			"u/x.service":     service(""),
			"u/x.socket":      "[Unit]\nDefaultDependencies=no\n[Socket]\nListenStream=/a/x\nListenFIFO=/b/x\n",
			wants("x.socket"): "-> x",
			"u/y.path":        "[Unit]\nDefaultDependencies=no\n[Path]\nPathExists=/c/x\nUnit=x.service\n",
			wants("y.path"):   "-> x"},
		"a mount below another, and a bind": {"u/a.mount": mount("/a"),
			"u/a-b.mount":      mount("/a/b"),
			"u/c.mount":        mount("/c"),
			"u/d.mount":        "[Mount]\nWhat=/c/x\nWhere=/d\nOptions=bind\n",
			wants("d.mount"):   "-> x",
			wants("a-b.mount"): "-> x"},
		"a path on the network is none": {"u/c.mount": mount("/c"),
			"u/d.mount": "[Mount]\nWhat=/c/x\nWhere=/d\nType=nfs\n", wants("d.mount"): "-> x"},
		"continued lines": {"u/a.mount": mount("/a"), "u/b.mount": mount("/b"), "u/c.mount": mount("/c"),
			"u/x.service":      service("Wants=a.mount \\\n# comment\n  b.mount \\\n\nWants=c.mount\n;Wants=x"),
			wants("x.service"): "-> x"},
		"no section": {"u/a.mount": mount("/a"),
			"u/x.service":      "Wants=a.mount\n" + service(""),
			wants("x.service"): "-> x"},
		"half a section": {"u/a.mount": mount("/a"),
			"u/x.service":      service("Wants=a.mount") + "[Mount\n",
			wants("x.service"): "-> x"},
		"half a section of a drop-in": {"u/a.mount": mount("/a"),
			"u/b.mount":            mount("/b"),
			"u/x.service":          service(""),
			wants("x.service"):     "-> x",
			"e/x.service.d/a.conf": "[Unit]\nWants=a.mount\n[Mount\n[Unit]\nWants=b.mount\n"},
		"ends of lines": {"u/srv.mount": strings.ReplaceAll(mount("/srv"), "\n", "\r\n"), wants("srv.mount"): "-> x"},
		"blanks":        {"u/srv.mount": " [Mount] \n What = x \n\tWhere\t=\t/srv\n", wants("srv.mount"): "-> x"},
		"an empty wants": {"u/a.mount": mount("/a"),
			"u/x.service":      service("Wants=a.mount\nWants=\nRequiresMountsFor="),
			wants("x.service"): "-> x"},
		"quotes": {"u/a.mount": mount("/a"),
			"u/b.mount":        mount("/b"),
			"u/x.service":      service(`Wants="a.mount" b.mount`),
			wants("x.service"): "-> x"},
		"percent":             {"u/a%b.mount": mount("/a%%b"), `u/a\x25b.mount`: mount("/a%%b"), wants(`a\x25b.mount`): "-> x"},
		"/usr/local is first": {"l/srv.mount": mount("/no"), "u/srv.mount": mount("/srv"), wants("srv.mount"): "-> x"},
		"a required unit that is not there": {"u/a.mount": mount("/a"), "u/b.mount": mount("/b"), "u/c.mount": mount("/c"),
			"u/x.service": service("Requires=none.service\nWants=a.mount"),
			"u/y.service": service("Requires=x.service\nWants=b.mount"),
			"u/z.service": service("Wants=y.service c.mount\nRequires=some.slice -.mount any"), wants("z.service"): "-> x"},
		"units that require each other in vain": {"u/a.mount": mount("/a"), "u/b.mount": mount("/b"),
			"u/x.service": service("Requires=y.service none.service\nWants=a.mount"),
			"u/y.service": service("Requires=x.service\nWants=b.mount"), wants("y.service"): "-> x"},
		"a path to what is masked": {"u/a.mount": mount("/a"),
			"u/b.mount":        "",
			"u/x.service":      service("Wants=a.mount\nRequiresMountsFor=/b"),
			wants("x.service"): "-> x"},
		"fstab": {"etc/fstab": `
UUID=a / ext4 noauto,nofail,x-systemd.automount 0 1
UUID=b /two
UUID=c /my\040disk ext4 nofail
host:/x /nfs nfs bg
UUID=d /no ext4 noauto
UUID=e /yes ext4 noauto,auto
UUID=f /dup ext4 noauto
UUID=f /dup ext4 defaults
UUID=g /by ext4 noauto,x-systemd.wanted-by=x.service
UUID=h /by2 ext4 x-systemd.required-by=none.service
tmpfs /tmp tmpfs
none /none autofs
UUID=i swap swap
/swap none swap
UUID=j relative ext4
//host/share /cifs cifs _netdev,noauto
/no/x /bind none bind,nofail
UUID=k /req ext4 x-systemd.requires=/deep/a,x-systemd.requires-mounts-for=/deep/b/c
UUID=l /deep/a ext4 noauto
UUID=m /deep/b ext4 noauto
`, "u/x.service": service(""), wants("x.service"): "-> x"},
		"fstab below /etc":       {"etc/fstab": "UUID=a /srv ext4\n", "e/srv.mount": mount("/no")},
		"fstab masked by /etc":   {"etc/fstab": "UUID=a /srv ext4\n", "e/srv.mount": "-> /dev/null"},
		"fstab above /usr":       {"etc/fstab": "UUID=a /srv ext4\n", "u/srv.mount": mount("/no")},
		"fstab above /usr/local": {"etc/fstab": "UUID=a /srv ext4\n", "l/srv.mount": "-> /dev/null"},
		"a link of fstab masked": {"etc/fstab": "UUID=a /srv ext4\n",
			"e/local-fs.target.requires/srv.mount": "-> /dev/null"},
		"fstab and a drop-in": {"etc/fstab": "UUID=a /srv ext4\n", "e/srv.mount.d/x.conf": "[Mount]\nWhere=/no\n"},
	} {
		t.Run(name, func(t *testing.T) {
			all := maps.Clone(base)
			maps.Copy(all, files)
			root := tree(t, all)
			mounts, err := etc.Mounts(os.DirFS(root), "")
			if err != nil {
				t.Fatal(err)
			}
			want := started(t, root+"/etc/systemd/system", generated(t, root), root+"/usr/local/lib/systemd/system", root+"/usr/lib/systemd/system")
			if diff := cmp.Diff(want, unitNames(t, mounts), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("mounts that start (-systemd +Mounts):\n%s", diff)
			}
		})
	}
}

// TestFstabAsGenerated: of each line systemd-fstab-generator makes a unit of the same
// place, type and options.
func TestFstabAsGenerated(t *testing.T) {
	root := tree(t, map[string]string{"real/x": "", "etc/fstab": `
LABEL=a\040b	/my\040disk	ext4	defaults,noatime	0 2
UUID=a /a auto ro,x-systemd.automount
UUID=b /two
UUID=c //c//d/ ext4 subvol=@/x,x-systemd.requires=/a
UUID=d /percent%20s/100% xfs discard%
UUID=e /.hidden/.x ext4 ro
UUID=f /back\134slash ext4 ro
host:/a /nfs nfs4 vers=4.2
UUID=g /two ext4 ro
UUID=h /été ext4
  UUID=j /j ext4 noauto # comment
`})
	dir := generated(t, root)
	list, err := etc.Mounts(os.DirFS(root), "")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	units, err := filepath.Glob(dir + "/*.mount")
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		set := map[string]string{}
		for line := range strings.Lines(string(text)) {
			key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			set[key] = strings.ReplaceAll(value, "%%", "%")
		}
		want = append(want, set["Where"]+" "+set["Type"]+" "+set["Options"])
	}
	for _, m := range list {
		line := m.Place + " " + strings.TrimSuffix(m.FS, "auto") + " " + strings.Join(m.Options, ",")
		got = append(got, strings.TrimSuffix(line, "defaults"))
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("mounts (-generator +Mounts):\n%s", diff)
	}
}

func BenchmarkMounts(b *testing.B) {
	for b.Loop() {
		if _, err := etc.Mounts(os.DirFS("/"), ""); err != nil {
			b.Fatal(err)
		}
	}
}
