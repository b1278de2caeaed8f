# Let the box get ready to stop, or for an image of it while it runs: run the user's hooks for that, one after the other,
# then write everything to the disks. $1: seconds that each hook may take; $2: the folder of the hooks. Exits with the status of the last hook that failed.
limit=$1 hooks=${2:-pre-stop.d} failed=0
for hook in /etc/devbox/"$hooks"/* "$HOME"/.config/devbox/"$hooks"/*; do
  [ -f "$hook" ] && [ -x "$hook" ] || continue
  if command -v timeout >/dev/null 2>&1; then timeout -k 5 "$limit" "$hook"; else "$hook"; fi
  status=$?
  if [ "$status" -ne 0 ]; then
    failed=$status
    if [ "$status" -eq 124 ]; then echo "${hook##*/} took longer than $limit s"; else echo "${hook##*/} exited with $status"; fi
  fi
done
sync
exit "$failed"
