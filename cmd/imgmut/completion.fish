# fish completion of imgmut. imgmut itself knows what can come next.
function __imgmut_complete
    set -l words (commandline -opc) (commandline -ct)
    $words[1] suggest $words[2..-1] 2>/dev/null
    or __fish_complete_path (commandline -ct)
end
complete -c imgmut -f -a '(__imgmut_complete)'
