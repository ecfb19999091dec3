package packages

import (
	"github.com/imgmut/imgmut/mutate/agent"
	"github.com/imgmut/imgmut/mutate/lazyregexp"
)

// pacman is the package manager of Arch Linux and its kin (pacman(8)).
var pacman = Manager{
	Name:     "pacman",
	ids:      []string{"arch"},
	programs: []string{"/usr/bin/pacman"},
	files:    ".pkg.tar",
	words:    pacmanWords,
	env:      offline,
	database: localDB,
}

// pacmanWords: pacman keeps its lists in the same directory as what is installed,
// and takes no other place for the lists alone. So lists that the image has step
// aside while others are there in their place.
const pacmanWords = `
db=$(pacman-conf DBPath)
sync=${db%/}/sync
fetched=
mkdir -p $aside/packages
pac() { pacman --noconfirm --noprogressbar --cachedir $aside/packages "$@"; }
fetch() { pac --sync --refresh; }
fetch_aside() {
	fetched=aside
	if [ -e $sync ]; then mv $sync $sync.imgmut; fi
	fetch
}
use_lists() { ls $sync/*.db >/dev/null 2>&1; }
installed() { pacman --query "${1%%=*}" >/dev/null 2>&1; }
remove() { pac --remove "$@"; }
upgrade() { pac --sync --needed "$@"; }
upgrade_all() { pac --sync --sysupgrade; }
# Names and files are two commands. Names come first, where files may need them.
install() {
	files=
	for name; do
		shift
		case $name in /*) files="$files $name" ;; *) set -- "$@" "$name" ;; esac
	done
	[ $# = 0 ] || pac --sync --needed "$@"
	[ -z "$files" ] || pac --upgrade $files
}
finish() {
	[ -n "$fetched" ] || return 0
	rm -rf $sync
	if [ -e $sync.imgmut ]; then mv $sync.imgmut $sync; fi
}
`

// localDB knows what pacman has installed. A shorter list than that with all
// fields has no architecture.
var localDB = database{
	programs: []string{"/usr/bin/pacman"},
	list:     agent.Command{Argv: []string{"pacman", "--query", "--info"}, Env: map[string]string{"LC_ALL": "C"}},
	parse: func(list string) []Package {
		var all []Package
		for _, field := range pacmanField().FindAllStringSubmatch(list, -1) {
			switch value := field[2]; {
			case field[1] == "Name":
				all = append(all, Package{Name: value})
			case len(all) == 0:
			case field[1] == "Version":
				all[len(all)-1].Version = value
			case field[1] == "Architecture":
				all[len(all)-1].Arch = value
			}
		}
		return all
	},
	ids: func(p Package) []string {
		v := p.Name + "-" + p.Version
		return []string{p.Name, p.Name + "=" + p.Version, v, v + "-" + p.Arch}
	},
}

var pacmanField = lazyregexp.New(`(?m)^(Name|Version|Architecture) +: (\S+)`)
