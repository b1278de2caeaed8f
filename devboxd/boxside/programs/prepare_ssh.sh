# Put the public key that comes on standard input into authorized_keys, and tell the host keys of the sshd on
# port $1; empty: nobody asks for them. Prints lines of "word value".
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
# sshd counts connections that do not log in: it drops some of too many at once (MaxStartups), and OpenSSH 9.8 and newer
# shuts their address out, which all of ours have (PerSourcePenalties). So there is one at a time, and only one where
# the key that it shows is among those that this system has made for sshd.
port=$1
made() { cat /etc/ssh/ssh_host_*_key.pub 2>/dev/null | while read -r t k c; do echo "host $t $k"; done; }
shown() {
  ssh-keyscan -T 3 -t "$1" -p "$port" 127.0.0.1 2>/dev/null | while read -r h t k; do case "$h" in '#'*) ;; *) echo "host $t $k";; esac; done
}
if [ -z "$port" ]; then
  :
elif command -v ssh-keyscan >/dev/null 2>&1; then
  first=$(shown ed25519)
  if [ -n "$first" ] && made | grep -qxF "$first"; then
    made
  else
    [ -n "$first" ] && printf '%s\n' "$first"
    shown ecdsa
    shown rsa
  fi
elif [ "$port" = 22 ]; then
  made
fi
echo "done yes"
