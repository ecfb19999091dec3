#compdef imgmut
# zsh completion of imgmut. imgmut itself knows what can come next.
_imgmut() {
	local -a said=(${words[1,CURRENT-1]}) opts
	[[ ${words[CURRENT]} != -* ]] || said+=(${words[CURRENT]})
	opts=(${(f)"$($said --generate-bash-completion 2>/dev/null)"})
	if (( $#opts )); then
		compadd -- $opts
	else
		_files
	fi
}
compdef _imgmut imgmut
