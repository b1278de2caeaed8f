# Join or create a mux session (or run one command) in a terminal. $0 is this text itself, common.sh
# included, so that it can start itself again as another user.
# $1 stage, $2 nonce, $3 user or empty, $4 mux or empty, $5 session, $6 TERM, $7 COLORTERM, $8 LANG,
# $9 command or empty, ${10} 1 where an ssh agent is lent
# A full-screen program throws away what waits in its terminal when it starts, and with it, on a busy box, the
# mark in front of it. So that one is made again a second later; it is taken out wherever it lands.
mark_again() { (sleep 1 >/dev/null 2>&1; mark "$1") & again=$!; }
mark() { printf '\033_devbox;%s;%s\033\\' "$n" "$1"; }
n=$2
if [ "$1" = 1 ]; then
  # The terminal is 0 by 0 until the client's first size arrives; a full-screen program must not see that.
  i=0
  while [ "$(stty size 2>/dev/null)" = "0 0" ] && [ $i -lt 100 ]; do
    sleep 0.04 2>/dev/null || sleep 1
    i=$((i+1))
  done
  choose_user "$3"
  if [ -n "$want" ]; then
    problem=$(user_problem)
    if [ -n "$problem" ]; then mark "fail;$problem;$want"; exit 1; fi
    as_user sh -c "$0" "$0" 2 "$2" "$want" "$4" "$5" "$6" "$7" "$8" "$9" "${10}"
    exit
  fi
fi
set_identity
TERM=$6
if command -v infocmp >/dev/null 2>&1 && ! infocmp "$TERM" >/dev/null 2>&1; then
  case "$TERM" in
    *256color*|*kitty*|*ghostty*|alacritty*|foot*|wezterm*) TERM=xterm-256color;;
    *) TERM=xterm;;
  esac
fi
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
unset ZELLIJ ZELLIJ_SESSION_NAME ZELLIJ_PANE_ID TMUX TMUX_PANE
# The path is the same for ever; who answers there changes with every attach that forwards an agent.
if [ -n "${10}" ]; then mkdir -p "$HOME/.devbox" && chmod 700 "$HOME/.devbox"; fi
if [ -z "$SSH_AUTH_SOCK" ] && [ -d "$HOME/.devbox" ]; then
  SSH_AUTH_SOCK=$HOME/.devbox/agent.sock; export SSH_AUTH_SOCK
fi
if [ -n "$9" ]; then
  mark "start;command;$USER"
  "$SHELL" -l -c "$9"; rc=$?
else
  mux=$4; path=
  case "$mux" in
    none) ;;
    '') path=$("$SHELL" -l -c 'command -v zellij || command -v tmux' 2>/dev/null </dev/null | tail -n 1)
        mux=${path##*/};;
    *)  path=$("$SHELL" -l -c "command -v $mux" 2>/dev/null </dev/null | tail -n 1)
        if [ -z "$path" ]; then mark "fail;no-mux;$mux"; exit 1; fi;;
  esac
  case "$mux" in
    zellij) mark "start;zellij;$USER"; mark_again "start;zellij;$USER"; "$SHELL" -l -c "exec zellij attach --create '$5'"; rc=$?;;
    tmux) mark "start;tmux;$USER"; mark_again "start;tmux;$USER"; "$SHELL" -l -c "exec tmux -u new-session -A -s '$5'"; rc=$?;;
    *) mark "start;none;$USER"; "$SHELL" -l; rc=$?;;
  esac
fi
[ -n "$again" ] && kill "$again" 2>/dev/null
mark "exit;$rc"
