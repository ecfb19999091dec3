package packages

// zypper is the package manager of SUSE and openSUSE (zypper(8)).
var zypper = Manager{
	Name:     "zypper",
	ids:      []string{"suse", "opensuse", "sles", "sled"},
	programs: []string{"/usr/bin/zypper"},
	files:    ".rpm",
	words:    rpmInstalled + zypperWords,
	env:      offline,
	database: rpm,
}

// zypperWords lets no refresh happen but the one that the step asks for. A file
// that the recipe names is installed though nobody signed it, as the other
// managers do; what comes from a repository has to be signed as the image says.
//
// Of zypper's exit statuses above 99 those pass that say that a running system
// would have to be restarted. A package or a repository that was not found (104,
// 106) and a script of a package that failed (107) do not.
//
// The id by which zypper lets servers count machines would be one id for all
// machines made of the image: the next zypper makes a new one.
const zypperWords = `
id=/var/lib/zypp/AnonymousUniqueId
had_id=$(ls $id 2>/dev/null) || had_id=
cache="--cache-dir $aside/zypp"
refresh=
zypp() {
	status=0
	zypper --non-interactive $cache $refresh "$@" || status=$?
	case $status in 102 | 103) status=0 ;; esac
	return $status
}
fetch() {
	cache="--pkg-cache-dir $aside/packages"
	fetch_aside
}
fetch_aside() {
	zypp refresh || [ $status = 6 ] || exit $status # 6: there are no repositories
	refresh=--no-refresh
}
use_lists() {
	ls -d /var/cache/zypp/raw/*/ >/dev/null 2>&1 || return
	refresh=--no-refresh
	cp -a /var/cache/zypp $aside
}
remove() { zypp remove "$@"; }
upgrade() { zypp update --auto-agree-with-licenses "$@"; }
upgrade_all() { zypp update --auto-agree-with-licenses; }
install() { zypp install --auto-agree-with-licenses --allow-unsigned-rpm "$@"; }
finish() {
	[ -n "$had_id" ] || rm -f $id
}
`
