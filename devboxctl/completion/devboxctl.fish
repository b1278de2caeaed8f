# fish completion for devboxctl: devboxctl completion fish | source
function __devboxctl_complete
    set -l words (commandline -opc)
    devboxctl _complete fish (count $words) $words (commandline -ct) 2>/dev/null
end
complete -c devboxctl -f -a '(__devboxctl_complete)'
