# bash completion for devboxctl: eval "$(devboxctl completion bash)"
_devboxctl() {
    mapfile -t COMPREPLY < <(devboxctl _complete bash "$COMP_CWORD" "${COMP_WORDS[@]}" 2>/dev/null)
}
complete -o nosort -o bashdefault -o default -F _devboxctl devboxctl
