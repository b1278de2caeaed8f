# Join or create a mux session (or run one command) in a terminal. $0 is this text itself, common.sh
# included, so that it can start itself again as another user.
# $1 stage, $2 nonce, $3 user or empty, $4 mux or empty, $5 session, $6 TERM, $7 COLORTERM, $8 LANG,
# $9 command or empty, ${10} 1 where an ssh agent is lent
# Marks: start;KIND;USER[;WHY]  exit;STATUS  fail;CODE;WHAT  note;CODE;WORDS
mark() { printf '\033_devbox;%s;%s\033\\' "$n" "$1"; }
# A full-screen program throws away what waits in its terminal when it starts, and with it, on a busy box, the
# mark in front of it. So that one is made again a second later; it is taken out wherever it lands.
mark_again() { (PATH=$2; sleep 1 >/dev/null 2>&1; mark "$1") & again=$!; }
# Part of a second, on the few systems that know none a whole one.
nap() { sleep 0.05 2>/dev/null || { sleep 1; i=$((i+19)); }; }

# Whether the box knows a terminal by that name. Without any database nobody can tell, and so it does.
has_term() {
  case "$1" in ''|*[!A-Za-z0-9._+-]*|.*) return 1;; esac
  if command -v infocmp >/dev/null 2>&1; then infocmp "$1" >/dev/null 2>&1; return; fi
  databases=
  for d in "$TERMINFO" "$HOME/.terminfo" /etc/terminfo /lib/terminfo /usr/share/terminfo /usr/lib/terminfo \
    /usr/local/share/terminfo /run/current-system/sw/share/terminfo; do
    [ -d "$d" ] || continue
    databases=1
    first=${1%"${1#?}"}
    for e in "$d/$first/$1" "$d/$(printf %x "'$first")/$1"; do [ -e "$e" ] && return 0; done
  done
  [ -z "$databases" ]
}

# Set TERM to what the user's terminal is, or to the nearest that this box knows.
choose_term() {
  TERM=$1
  case "$1" in dumb|unknown|'') TERM=dumb; return;; esac
  has_term "$1" && return
  case "$1" in
    screen*|tmux*) near='screen-256color screen xterm-256color xterm vt100';;
    *256color*|*kitty*|*ghostty*|alacritty*|foot*|wezterm*|contour*|rio*) near='xterm-256color xterm vt100';;
    *) near='xterm xterm-256color vt100';;
  esac
  for TERM in $near; do has_term "$TERM" && break; done
  mark "note;term;$(printf %s "$1" | tr -cd 'A-Za-z0-9._+-' | cut -c 1-40);$TERM"
}

# Ask the user's login shell for the environment that it makes, for $1 seconds at most: sets `environment` to text
# that a shell can evaluate, and `paths`. A profile may print, wait, end the shell or put another program in its place,
# and leave programs behind that hold its output open: so what we look for stands between nonces in a file, nobody
# waits for an end, and without it all stays as it is. TMUX and ZELLIJ are set meanwhile: a profile that starts a
# mux of its own is not to do it here.
login_environment() {
  [ -z "$asked" ] || return 1
  asked=1
  f=$(umask 077; mktemp 2>/dev/null) || return 1
  # csh takes no other flag beside -l; it reads the file that sets the path all the same.
  case "$SHELL" in *csh) login=;; *) login=-l;; esac
  command -v setsid >/dev/null 2>&1 && detached=setsid || detached=
  DEVBOX_ASK="printf '\n%s\n' $n; echo umask \$(umask); export -p; printf '\n%s\n' $n" TMUX=devbox ZELLIJ=0 \
    $detached "$SHELL" $login -c "exec /bin/sh -c 'eval \"\$DEVBOX_ASK\"'" >"$f" 2>/dev/null </dev/null &
  pid=$!
  i=0; answered=
  while [ $i -lt $(($1*20)) ]; do
    kill -0 $pid 2>/dev/null && runs=1 || runs=
    [ "$(grep -cx "$n" "$f")" -ge 2 ] && answered=1 && break
    [ -n "$runs" ] || break
    [ $i -eq 20 ] && mark "note;login;$1"
    nap; i=$((i+1))
  done
  [ -n "$answered" ] && environment=$(sed -n "/^$n\$/,/^$n\$/p" "$f" | sed "/^$n\$/d") || kill $pid 2>/dev/null
  rm -f "$f"
  [ -n "$answered" ] || return 1
  # Some names cannot be set in every shell, and the attempt would be our end: then the path has to do.
  paths=$(eval "$(printf '%s\n' "$environment" | grep '^export PATH=')" >/dev/null 2>&1; printf %s "$PATH")
  (eval "$environment") >/dev/null 2>&1 || environment=
}

# Where systems and their package managers keep programs, whether or not the agent's PATH says so.
system='/usr/local/bin /opt/homebrew/bin /home/linuxbrew/.linuxbrew/bin /opt/local/bin
  /nix/var/nix/profiles/default/bin /run/current-system/sw/bin /snap/bin /usr/bin /bin /usr/pkg/bin /opt/bin'

# Set `path` to a mux that runs: $1, or zellij before tmux. What users install for themselves comes first, as in
# the profiles that most of them have: a tmux may not fit the server of another one.
find_mux() {
  path=
  for name in ${1:-zellij tmux}; do
    for d in "$HOME/.local/bin" "$HOME/bin" "$HOME/.cargo/bin" "$HOME/.nix-profile/bin" \
      "$HOME/.local/state/nix/profile/bin" "/etc/profiles/per-user/$USER/bin" "$HOME/.guix-profile/bin" \
      "$HOME/.linuxbrew/bin" "$HOME/.local/share/mise/shims" "$HOME/.asdf/shims" "$HOME/.pixi/bin" \
      "$(PATH=$paths; command -v "$name" 2>/dev/null)" $system; do
      case "$d" in */"$name") file=$d;; *) file=$d/$name;; esac
      case "$file" in /*) ;; *) continue;; esac
      [ -f "$file" ] && [ -x "$file" ] || continue
      case "$name" in tmux) version=-V;; *) version=--version;; esac
      "$file" $version >/dev/null 2>&1 </dev/null || continue
      path=$file; mux=$name
      return 0
    done
  done
  return 1
}

# Whether the session is there already: then the environment of its server counts, and not ours.
mux_runs() {
  case "$mux" in
    tmux) "$path" has-session -t "=$1" >/dev/null 2>&1 </dev/null;;
    *) "$path" list-sessions 2>/dev/null </dev/null | sed "s/$(printf '\033')\[[0-9;]*m//g" |
      grep -v EXITED | grep -q "^$1 ";;
  esac
}

n=$2; asked=; environment=; paths=$PATH
if [ "$1" = 1 ]; then
  # The terminal is 0 by 0 until the client's first size arrives; a full-screen program must not see that.
  i=0
  while [ "$(stty size 2>/dev/null)" = "0 0" ] && [ $i -lt 100 ]; do nap; i=$((i+1)); done
  choose_user "$3"
  if [ -n "$want" ]; then
    problem=$(user_problem)
    if [ -n "$problem" ]; then mark "fail;$problem;$want"; exit 1; fi
    as_user sh -c "$0" "$0" 2 "$2" "$want" "$4" "$5" "$6" "$7" "$8" "$9" "${10}"
    exit
  fi
fi
set_identity
choose_term "$6"
term=$TERM
case "${LC_ALL:-${LANG:-}}" in *[Uu][Tt][Ff]*) ;; *) LANG=${8:-C.UTF-8};; esac
if [ -n "$7" ]; then COLORTERM=$7; export COLORTERM; fi
export TERM LANG
# A runtime directory goes with the last login unless lingering is on; sockets in it would go, too.
if [ -z "$XDG_RUNTIME_DIR" ] && [ -d "/run/user/$u" ] && [ -O "/run/user/$u" ]; then
  [ -e "/var/lib/systemd/linger/$USER" ] ||
    loginctl enable-linger "$USER" >/dev/null 2>&1 ||
    sudo -n loginctl enable-linger "$USER" >/dev/null 2>&1
  if [ -e "/var/lib/systemd/linger/$USER" ]; then XDG_RUNTIME_DIR=/run/user/$u; export XDG_RUNTIME_DIR; fi
fi
# The path is the same for ever; who answers there changes with every attach that forwards an agent.
if [ -n "${10}" ]; then mkdir -p "$HOME/.devbox" && chmod 700 "$HOME/.devbox"; fi
if [ -z "$SSH_AUTH_SOCK" ] && [ -d "$HOME/.devbox" ]; then
  SSH_AUTH_SOCK=$HOME/.devbox/agent.sock; export SSH_AUTH_SOCK
fi
mux=none; why=asked; path=
if [ -n "$9" ]; then
  login_environment 10
elif [ "$4" = none ]; then
  :
elif [ "$TERM" = dumb ]; then
  why=dumb
elif find_mux "$4" || { login_environment 10 && find_mux "$4"; }; then
  # Panes of tmux are login shells, those of zellij are not: the one can do without, the other hardly.
  case "$mux" in tmux) limit=2;; *) limit=10;; esac
  if ! mux_runs "$5" && login_environment $limit; then find_mux "$4"; fi
else
  mux=none; why=missing
  [ -n "$answered" ] || why=silent
  if [ -n "$4" ]; then mark "fail;no-mux;$4;$why"; exit 1; fi
fi
case "$path:$paths:" in :*|*":${path%/*}:"*) ;; *) paths=$paths:${path%/*};; esac
# The user may have exported a variable of any name; only what stands in $1 … is still ours afterwards.
set -- "$n" "$term" "$mux" "$path" "$5" "$9" "$why" "$paths" "$USER" "$PATH"
eval "$environment"
n=$1; TERM=$2; PATH=$8; export TERM PATH
unset DEVBOX_ASK ZELLIJ ZELLIJ_SESSION_NAME ZELLIJ_PANE_ID TMUX TMUX_PANE
cd "$HOME" 2>/dev/null || cd /
if [ -n "$6" ]; then
  mark "start;command;$9"
  "$SHELL" -c "$6"; rc=$?
elif [ "$3" = none ]; then
  mark "start;none;$9;$7"
  "$SHELL" -l; rc=$?
else
  mark "start;$3;$9"; mark_again "start;$3;$9" "${10}"
  case "$3" in
    tmux) "$4" -u new-session -A -s "$5"; rc=$?;;
    *) "$4" attach --create "$5"; rc=$?;;
  esac
  kill "$again" 2>/dev/null
fi
mark "exit;$rc"
