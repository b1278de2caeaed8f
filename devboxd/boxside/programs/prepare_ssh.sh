# Put the public key that comes on standard input into authorized_keys, and tell the host keys of the sshd on
# port $1. Prints lines of "word value".
read -r key
umask 077
echo "user $(id -un)"
if mkdir -p "$HOME/.ssh" 2>/dev/null && touch "$HOME/.ssh/authorized_keys" 2>/dev/null; then
  f=$HOME/.ssh/authorized_keys
  if ! grep -qxF "$key" "$f"; then
    [ -s "$f" ] && [ -n "$(tail -c 1 "$f")" ] && echo >> "$f"
    printf '%s\n' "$key" >> "$f"
  fi
  grep -qxF "$key" "$f" && echo "key yes"
else
  echo "key no"
fi
if command -v ssh-keyscan >/dev/null 2>&1; then
  ssh-keyscan -T 3 -p "$1" 127.0.0.1 2>/dev/null | while read -r h t k; do case "$h" in '#'*) ;; *) echo "host $t $k";; esac; done
else
  [ "$1" = 22 ] && cat /etc/ssh/ssh_host_*_key.pub 2>/dev/null | while read -r t k c; do echo "host $t $k"; done
fi
echo "done yes"
