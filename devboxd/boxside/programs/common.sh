# What every start script on a box needs. Plain sh; in front of attach.sh and relay.sh.

# Set `want` to the user to become: $1, or the box's first ordinary user where the session is only
# Session Manager's own. Empty: stay. Needs no password or does not happen.
choose_user() {
  want=$1
  if [ -z "$want" ] && [ "$(id -un)" = ssm-user ]; then
    want=$(getent passwd 1000 2>/dev/null | cut -d: -f1)
    [ -n "$want" ] && ! sudo -n -u "$want" true 2>/dev/null && want=
  fi
  [ "$want" = "$(id -un)" ] && want=
  return 0
}

# Say why `want` cannot be become: prints no-user, no-sudo, or nothing.
user_problem() {
  if ! id "$want" >/dev/null 2>&1; then echo no-user
  elif [ "$(id -u)" != 0 ] && ! sudo -n -u "$want" true 2>/dev/null; then echo no-sudo
  fi
}

# Run a command as `want`.
as_user() {
  if [ "$(id -u)" != 0 ]; then sudo -n -H -u "$want" "$@"
  elif command -v runuser >/dev/null 2>&1; then runuser -u "$want" -- "$@"
  else su -s /bin/sh "$want" -c 'exec "$0" "$@"' -- "$@"
  fi
}

# Session Manager sets none of these, or the service's own.
set_identity() {
  USER=$(id -un); LOGNAME=$USER; u=$(id -u)
  entry=$(getent passwd "$u" 2>/dev/null || grep "^[^:]*:[^:]*:$u:" /etc/passwd)
  home=$(printf %s "$entry" | cut -d: -f6); SHELL=$(printf %s "$entry" | cut -d: -f7)
  if [ -n "$home" ] && [ -d "$home" ] && [ -z "$DEVBOX_KEEP_HOME" ]; then HOME=$home; fi
  case "$SHELL" in ''|*/nologin|*/false) SHELL=/bin/sh;; esac
  [ -x "$SHELL" ] || SHELL=/bin/sh
  export USER LOGNAME HOME SHELL
  cd "$HOME" 2>/dev/null || cd /
}
