# Run one command for the relay protocol (devboxd/boxside/relay.py). $0 is this text itself, common.sh
# included. $1 stage, $2 nonce, $3 user or empty, $4 folder or empty, $5 the program for Python
fail() { printf '\n%s:f125 %s\n' "$2" "$1"; exit 1; }
if [ "$1" = 1 ]; then
  stty raw -echo 2>/dev/null
  choose_user "$3"
  if [ -n "$want" ]; then
    problem=$(user_problem)
    [ -n "$problem" ] && fail "$problem" "$2"
    as_user sh -c "$0" "$0" 2 "$2" "$want" "$4" "$5"
    exit
  fi
fi
set_identity
PATH="$HOME/.local/bin:$PATH:/usr/local/bin"; export PATH
unset TERM
if [ -n "$4" ] && ! cd "$4" 2>/dev/null; then fail no-folder "$2"; fi
p=$(command -v python3 2>/dev/null)
# Not exec: the agent kills its direct child when a session is ended, and the relay must live to pass that on.
if [ -n "$p" ]; then "$p" -I -S -c "$5" "$2"; exit; fi

# No Python: the same lines from sh alone. Streams come when the command has ended, input goes in first.
t=$(mktemp -d) || exit 1
trap 'rm -rf "$t"' EXIT
printf '\n%s:r{"relay":"sh"}\n' "$2"
: > "$t/in"
while IFS= read -r l; do
  case "$l" in
    R*) printf %s "${l##* }" | base64 -d > "$t/cmd";;
    i*) printf %s "${l#i}" | base64 -d > "$t/chunk"
        cat "$t/chunk" >> "$t/in"
        printf 'c%s\n' "$(wc -c < "$t/chunk" | tr -d ' ')";;
    z*) break;;
  esac
done
sh "$t/cmd" < "$t/in" > "$t/out" 2> "$t/err"; rc=$?
for s in O:out E:err; do
  base64 < "$t/${s#*:}" | tr -d '\n' | fold -w 40000 | while IFS= read -r l || [ -n "$l" ]; do
    printf '%s%s\n' "${s%%:*}" "$l"
  done
done
printf 'x%s\n' "$rc"
# The agent gives unacknowledged output two seconds at the end; stay until all of it was seen.
while IFS= read -r l; do case "$l" in k*) break;; esac; done
