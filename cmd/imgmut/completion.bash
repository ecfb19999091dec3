# bash completion of imgmut. imgmut itself knows what can come next.
_imgmut() {
	local cur=${COMP_WORDS[COMP_CWORD]} said words
	[[ $cur != = ]] || cur=
	if said=$("${COMP_WORDS[0]}" suggest "${COMP_WORDS[@]:1:COMP_CWORD-1}" "$cur" 2>/dev/null); then
		compopt +o bashdefault +o default 2>/dev/null || true # no files
	fi
	mapfile -t words <<<"$said"
	mapfile -t COMPREPLY < <(compgen -W "${words[*]%%$'\t'*}" -- "$cur")
}
complete -o bashdefault -o default -F _imgmut imgmut
