package step_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/imgmut/imgmut/mutate/step"
	"github.com/imgmut/imgmut/recipes"
)

// parse reads a recipe with those steps.
func parse(t *testing.T, steps string) *recipes.Recipe {
	t.Helper()
	indented := "  " + strings.ReplaceAll(strings.TrimSpace(steps), "\n", "\n  ")
	r, err := recipes.Parse("recipe.yaml", []byte("version: 1\nname: x\nbase: y\nsteps:\n"+indented+"\n"))
	if err != nil {
		t.Fatalf("%v\n%s", err, indented)
	}
	return r
}

// examples are the options of each kind's example as they go into a key. A
// change here changes the key of every layer out there: is it meant?
var examples = map[string][]string{
	"run": {
		`{"script":"useradd --create-home builder\ninstall -d -o builder /home/builder/src\n"}`,
		`{"argv":["ldconfig","-v"]}`,
		`{"script":"curl -fsSL https://example.org/key.asc -o /etc/apt/keyrings/example.asc",` +
			`"env":{"http_proxy":"http://proxy:3128"},"workdir":"/etc"}`,
		`{"script":"/usr/local/sbin/change-boot-menu"}`,
	},
	"write": {`{"path":"/etc/motd","content":"hello\n","mode":"0644","owner":"root:adm"}`},
	"copy": {
		`{"from":"site/","to":"/srv/www","owner":"www-data:www-data"}`,
		`{"from":"app.conf","to":"/etc/app/","mode":"0640"}`,
		`{"from":"rootfs/","to":"/","mode":"keep","owner":"keep"}`,
	},
	"packages": {
		`{"install":["nginx-light","curl"],"remove":["nano"],"update":true}`, `{"install":["nginx-light"]}`,
		`{"upgrade":{"all":true}}`, `{"upgrade":{"names":["openssl","libssl3"]},"keep-lists":true}`,
		`{"install":["./agent.deb","/root/driver.deb"]}`,
	},
	"systemd": {`{"enable":["nginx.service"],"disable":["apt-daily.timer"],"mask":["getty@tty1.service"],` +
		`"default-target":"multi-user.target"}`},
	"kernel-args": {`{"add":["console=ttyS0"],"remove":["quiet","splash"],"set":["panic=10"]}`, `{"add":["mitigations=auto"]}`},
	"initramfs":   {`{}`, `{"kernels":["6.1.0-37-cloud-amd64"]}`},
	"bootloader":  {`{"install":"grub-bios"}`, `{"install":"grub-efi","path":"vendor"}`, `{"install":"systemd-boot"}`},
}

func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range step.Kinds() {
		t.Run(k.Name, func(t *testing.T) {
			if seen[k.Name] {
				t.Error("the name is not unique")
			}
			seen[k.Name] = true
			if k.Version < 1 || k.Summary == "" || strings.Contains(k.Summary, "\n") {
				t.Errorf("version %d, summary %q", k.Version, k.Summary)
			}
			all, err := step.DecodeAll(parse(t, k.Example))
			if err != nil {
				t.Fatal(err)
			}
			if len(all) != len(examples[k.Name]) {
				t.Fatalf("%d examples, want %d", len(all), len(examples[k.Name]))
			}
			for i, d := range all {
				if d.Kind.Name != k.Name {
					t.Errorf("example %d is of kind %s", i, d.Kind.Name)
				}
				b, err := json.Marshal(d.Value)
				if err != nil || string(b) != jsonOf(t, examples[k.Name][i]) {
					t.Errorf("example %d is\n%s, %v; want\n%s", i, b, err, examples[k.Name][i])
				}
			}

			_, err = step.DecodeAll(parse(t, "- "+k.Name+": {no-such-option: x}"))
			if err == nil || !strings.Contains(err.Error(), "no-such-option") {
				t.Errorf("an unknown option: %v", err)
			}
			if k.New() == k.New() {
				t.Error("New gives the same step twice")
			}
		})
	}
	if len(seen) != len(examples) {
		t.Errorf("examples has %d kinds, Kinds %d", len(examples), len(seen))
	}
}

// jsonOf gives a JSON text as json.Marshal would escape it.
func jsonOf(t *testing.T, s string) string {
	t.Helper()
	b, err := json.Marshal(json.RawMessage(s))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestTimeoutIsNotInTheKey: it decides whether a step ends, not how.
func TestTimeoutIsNotInTheKey(t *testing.T) {
	all, err := step.DecodeAll(parse(t, "- run: {script: x, timeout: 1m}\n- run: {script: x}"))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(all[0].Value)
	b, _ := json.Marshal(all[1].Value)
	if string(a) != string(b) {
		t.Errorf("%s and %s differ", a, b)
	}
}

func TestUnknownKind(t *testing.T) {
	_, err := step.DecodeAll(parse(t, "- runn: x\n- write: {path: x}"))
	var problems recipes.Problems
	if !errors.As(err, &problems) || len(problems) != 2 {
		t.Fatalf("DecodeAll: %v, want the problems of both steps", err)
	}
	const want = "no such kind: runn (there are run, write, copy, packages, systemd, kernel-args, initramfs, bootloader)"
	if problems[0].Message != want || problems[0].Line != 5 {
		t.Errorf("line %d: %s, want line 5: %s", problems[0].Line, problems[0].Message, want)
	}
}

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		in   string
		want []string // each of the problems, in order; none means valid
	}{
		{`run: "x"`, nil},
		{`run: ""`, []string{"run: nothing to run: want a script or a list"}},
		{`run: " "`, []string{"nothing to run"}},
		{`run: []`, []string{"nothing to run"}},
		{`run: [""]`, []string{"the program has no name"}},
		{`run: {script: x, argv: [y]}`, []string{"run.argv: want either script or argv, not both"}},
		{`run: {script: x, workdir: var, timeout: -1s}`,
			[]string{`run.workdir: "var": want an absolute path`, "run.timeout: "}},

		{`write: {path: /etc/x}`, nil},
		{`write: {path: /etc/x, content: x, mode: "4755", owner: "33:www-data"}`, nil},
		{`write: {}`, []string{`write.path: "": want a clean absolute path in the image`}},
		{`write: {path: etc/x}`, []string{`"etc/x": want a clean absolute path`}},
		{`write: {path: /etc/../x}`, []string{`"/etc/../x": want a clean absolute path`}},
		{`write: {path: /}`, []string{`"/": want a clean absolute path`}},
		{`write: {path: /etc/x/}`, []string{`"/etc/x/": want`}},
		{`write: {path: /run/x}`, []string{`"/run/x": /run is not part of the image`}},
		{`write: {path: /tmp/x}`, []string{"/tmp is not part of the image"}},
		{`write: {path: /dev/shm/x}`, []string{"/dev is not part of the image"}},
		{`write: {path: /proc/x}`, []string{"/proc is not part of the image"}},
		{`write: {path: /sys}`, []string{"/sys is not part of the image"}},
		{`write: {path: /running}`, nil},
		{`write: {path: /x, mode: rw, owner: "a b"}`,
			[]string{`write.mode: "rw": want octal permissions`, `write.owner: "a b": want USER or USER:GROUP`}},
		{`write: {path: /x, mode: "10000"}`, []string{`"10000": want octal`}},
		{`write: {path: /x, mode: "0888"}`, []string{`"0888": want octal`}},
		{`write: {path: /x, owner: "root:Debian-exim"}`, nil},
		{`write: {path: /x, owner: "Jane.Doe:4294967294"}`, nil},
		{`write: {path: /x, owner: "_apt:host$"}`, nil},
		{`write: {path: /x, owner: "abcdefghijklmnopqrstuvwxyz012345"}`, nil},
		{`write: {path: /x, owner: "abcdefghijklmnopqrstuvwxyz0123456"}`, []string{"want USER"}},
		{`write: {path: /x, owner: "4294967295"}`, []string{`"4294967295": want USER`}},
		{`write: {path: /x, owner: "a:b:c"}`, []string{"want USER"}},
		{`write: {path: /x, owner: "+@group"}`, []string{"want USER"}},
		{`write: {path: /x, owner: "root:"}`, []string{`"root:": want USER`}},
		{`write: {path: /x, owner: ":root"}`, []string{`":root": want USER`}},
		{`write: {path: /x, owner: "-R"}`, []string{`"-R": want USER`}},

		{`copy: {from: ., to: /}`, nil},
		{`copy: {from: site/, to: /srv/www/}`, nil},
		{`copy: {}`, []string{`copy.from: "": want a path inside the recipe's own directory`, `copy.to: ""`}},
		{`copy: {from: ../key, to: /x}`, []string{`"../key": want a path inside`}},
		{`copy: {from: /etc/passwd, to: /x}`, []string{`"/etc/passwd": want a path inside`}},
		{`copy: {from: a/../../b, to: /x}`, []string{"want a path inside"}},
		{`copy: {from: a, to: /run/x/, mode: "9", owner: "a b"}`, []string{"copy.to: ", "copy.mode: ", "copy.owner: "}},
		{`copy: {from: a, to: /x, mode: keep, owner: keep}`, nil},

		{`packages: [nginx, "libc6:i386", "curl=7.88.1-10+deb12u5", "g++"]`, nil},
		{`packages: {upgrade: true}`, nil},
		{`packages: {upgrade: [a], keep-lists: true}`, nil},
		{`packages: {keep-lists: true, update: true}`, nil},
		{`packages: {update: true}`,
			[]string{"packages.update: lists of packages are not left in the image unless keep-lists: true"}},
		{`packages: {}`, []string{"packages: nothing to do: want install, remove, update or upgrade"}},
		{`packages: {upgrade: [-y]}`, []string{`packages.upgrade[0]: "-y" is not the name of a package`}},
		{`packages: [./a.deb, sub/b.rpm, /root/c.pkg.tar.zst, "./d_1.0-1+b1~x_all.apk", nano/bookworm-backports]`, nil},
		{`packages: [c.deb, ./d, ../e.deb, ./f/../../g.deb, /a//b.deb, "./a b.deb"]`,
			[]string{`"c.deb": a file beside the recipe is written ./c.deb`, `"./d": want a file that ends in .deb`,
				`"../e.deb": want a path inside`, `"./f/../../g.deb": want a path inside`, `"/a//b.deb": want a clean absolute`,
				`"./a b.deb": want a path of letters`}},
		{`packages: {remove: [./a.deb], upgrade: [/a.deb]}`,
			[]string{`packages.remove[0]: "./a.deb" is a file, which can only be installed`, `packages.upgrade[0]: "/a.deb" is`}},
		{`packages: ["-y"]`, []string{`packages: "-y" is not the name of a package`}},
		{`packages: {remove: ["a b", ""]}`, []string{`packages.remove[0]: "a b"`, `packages.remove[1]: ""`}},

		{`systemd: {enable: ["getty@tty1.service"], default-target: rescue.target}`, nil},
		{`kernel-args: {set: [a=1], remove: [b, c=2], add: [d]}`, nil},
		{`kernel-args: {}`, []string{"kernel-args: nothing to do: want add, remove or set"}},
		{`kernel-args: {set: [a, "=1"], add: ["a b", "$x"], remove: [""]}`, []string{`kernel-args.set[0]: "a": want NAME=VALUE`,
			`kernel-args.set[1]: "=1": want NAME=VALUE`, `kernel-args.add[0]: "a b": want one word`,
			`kernel-args.add[1]: "$x": want one word`, `kernel-args.remove[0]: ""`}},
		{`initramfs: [6.1.0-37-cloud-amd64, 6.12.118+deb13-cloud-amd64]`, nil},
		{`initramfs: some`, []string{`"some": want all, or a list of kernels`}},
		{`initramfs: [../x]`, []string{`"../x": want the version of a kernel`}},
		{`bootloader: {install: grub-efi, path: removable}`, nil},
		{`bootloader: lilo`, []string{`bootloader: "lilo": want grub-bios, grub-efi, systemd-boot`}},
		{`bootloader: {install: grub-bios, path: x}`, []string{`bootloader.path: "x": want removable or vendor`, `only grub-efi has a choice`}},

		{`systemd: {}`, []string{"systemd: nothing to do: want enable, disable, mask or default-target"}},
		{`systemd: {enable: [nginx], disable: [--now], mask: ["a b.service"], default-target: x}`,
			[]string{`systemd.enable[0]: "nginx": want a full unit name`, `systemd.disable[0]: "--now"`,
				`systemd.mask[0]: "a b.service"`, `systemd.default-target: "x"`}},
	} {
		t.Run(tc.in, func(t *testing.T) {
			_, err := step.DecodeAll(parse(t, "- "+tc.in))
			var problems recipes.Problems
			if err != nil && !errors.As(err, &problems) {
				t.Fatal(err)
			}
			if len(problems) != len(tc.want) {
				t.Fatalf("problems %q, want %q", problems, tc.want)
			}
			for i, want := range tc.want {
				if !strings.Contains(problems[i].Error(), want) {
					t.Errorf("problem %q, want it to mention %q", problems[i], want)
				}
			}
		})
	}
}

func TestNetwork(t *testing.T) {
	for in, want := range map[string]bool{
		"{install: [a]}": true, "{update: true, install: [a]}": true, "{upgrade: true}": true, "{upgrade: [a]}": true,
		"{keep-lists: true}": true, "{remove: [a]}": false,
	} {
		all, err := step.DecodeAll(parse(t, "- packages: "+in))
		if err != nil {
			t.Fatal(err)
		}
		if got := all[0].Value.(step.Networker).Network(); got != want {
			t.Errorf("packages: %s: Network() = %t", in, got)
		}
	}
}
