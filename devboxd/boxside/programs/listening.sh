# Print the ports that this user's programs listen on, in one line, whenever they change. /proc/net says it on
# every Linux (state 0A is LISTEN, field 8 the user id); elsewhere lsof does.
u=$(id -u); last=
while :; do
  if [ -r /proc/net/tcp ]; then
    now=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v u="$u" '$4 == "0A" && $8 == u { n = split($2, a, ":"); print a[n] }' | sort -u | tr '\n' ' ')
    now="hex $now"
  else
    now="dec $(lsof -nP -iTCP -sTCP:LISTEN -a -u "$u" -Fn 2>/dev/null | sed -n 's/^n.*://p' | sort -un | tr '\n' ' ')"
  fi
  if [ "$now" != "$last" ]; then echo "$now"; last=$now; fi
  sleep 1
done
