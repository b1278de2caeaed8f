# Set `python` to a Python 3.6 or newer, wherever the box has it, that runs with `as` in front of it; where there is none,
# `problem` says why. Plain sh; in front of run_python.sh, jobs.sh and watch.sh.
as=
find_python() {
  problem="python3 is not on the box"
  for p in python3 /usr/bin/python3 /usr/local/bin/python3 /run/current-system/sw/bin/python3 \
    "$HOME/.nix-profile/bin/python3" "/etc/profiles/per-user/$(id -un)/bin/python3" /nix/var/nix/profiles/default/bin/python3 \
    /usr/libexec/platform-python /opt/homebrew/bin/python3 "$HOME/.local/bin/python3" "$HOME/.pyenv/shims/python3"; do
    python=$(command -v "$p" 2>/dev/null) || continue
    problem="python3 on the box is older than 3.6, or does not run"
    $as "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null && return
  done
  return 1
}
