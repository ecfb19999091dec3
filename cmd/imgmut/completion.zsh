#compdef imgmut
# zsh completion of imgmut. imgmut itself knows what can come next.
_imgmut() {
	local said
	local -a all
	said=$(${words[1]} suggest "${(@)words[2,CURRENT]}" 2>/dev/null)
	local files=$?
	all=(${(f)said})
	(( ! $#all )) || compadd -- ${all%%$'\t'*}
	(( ! files )) || _files
}
compdef _imgmut imgmut
