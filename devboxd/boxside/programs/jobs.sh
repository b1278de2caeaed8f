# Run the program $1 with its own text and the request $2 (JSON), in a Python 3.6 or newer. Plain sh.
old=
for p in python3 /usr/bin/python3 /usr/local/bin/python3 /run/current-system/sw/bin/python3 \
  "$HOME/.nix-profile/bin/python3" "/etc/profiles/per-user/$(id -un)/bin/python3" /nix/var/nix/profiles/default/bin/python3 \
  /usr/libexec/platform-python /opt/homebrew/bin/python3 "$HOME/.local/bin/python3" "$HOME/.pyenv/shims/python3"; do
  command -v "$p" >/dev/null 2>&1 || continue
  old=1
  "$p" -I -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2>/dev/null || continue
  exec "$p" -I -c 'import sys; exec(sys.argv[1])' "$1" "$2" devbox-jobs
done
if [ "$old" ]; then echo '{"problem": "python3 on the box is older than 3.6, or does not run"}'; exit; fi
echo '{"problem": "python3 is not on the box"}'
