#compdef devboxctl
# zsh completion for devboxctl: eval "$(devboxctl completion zsh)"
_devboxctl() {
    local -a found
    found=("${(@f)$(devboxctl _complete zsh $((CURRENT - 1)) "${words[@]}" 2>/dev/null)}")
    if [[ -n "${found[1]}" ]]; then
        compadd -- "${found[@]}"
    else
        _files
    fi
}
if [[ "${funcstack[1]}" == "_devboxctl" ]]; then
    _devboxctl "$@"
else
    compdef _devboxctl devboxctl
fi
