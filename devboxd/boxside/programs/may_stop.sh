# Ask the user's hooks whether the box may stop. Each exits with 75 to keep it; whatever else it says does not.
# $1: seconds that each hook may take. Prints the name of the first that keeps the box, and exits with 75.
for hook in /etc/devbox/may-stop.d/* "$HOME"/.config/devbox/may-stop.d/*; do
  [ -f "$hook" ] && [ -x "$hook" ] || continue
  if command -v timeout >/dev/null 2>&1; then timeout -k 5 "$1" "$hook" >/dev/null 2>&1; else "$hook" >/dev/null 2>&1; fi
  if [ $? -eq 75 ]; then echo "${hook##*/}"; exit 75; fi
done
exit 0
