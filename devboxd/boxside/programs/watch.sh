# Look at what works on this box; see activity.py. Prints one line: its JSON, or "need" where the program is not here yet.
# $1 SHA-256 of the program, $2 instance id, $3 rules (JSON), $4 the program: base64 of zlib, or nothing.
# On the instance itself a timer of systemd looks once a minute from then on, or a loop where that can not be: as root
# where sudo asks for nothing, so that the box can stop itself. Anywhere else (a simulated box) nothing is left behind.
umask 077
folder=$HOME/.devbox/idle; here=
tag=$(cat /sys/devices/virtual/dmi/id/board_asset_tag 2>/dev/null); cloud=$(cat /var/lib/cloud/data/instance-id 2>/dev/null)
if [ -n "$2" ] && { [ "$tag" = "$2" ] || [ "$cloud" = "$2" ]; }; then
  here=1
  if [ "$(id -u)" = 0 ]; then folder=/var/lib/devbox
  elif sudo -n true 2>/dev/null; then as='sudo -n'; folder=/var/lib/devbox
  fi
fi
find_python || { echo "problem $problem"; exit 0; }
file=$folder/activity-$(printf %s "$1" | cut -c 1-16).py
if [ "$($as sha256sum "$file" 2>/dev/null | cut -d ' ' -f 1)" != "$1" ]; then
  if [ -z "$4" ]; then echo need; exit 0; fi
  $as mkdir -p "$folder"
  if ! printf %s "$4" | $as "$python" -I -c 'import base64, os, sys, zlib
new = sys.argv[1] + ".new"
open(new, "wb").write(zlib.decompress(base64.b64decode(sys.stdin.read())))
os.rename(new, sys.argv[1])' "$file"; then echo "problem the program can not be written to $folder"; exit 0; fi
fi
rules=$(printf %s "$3" | "$python" -I -c 'import json, os, pwd, sys
rules = json.load(sys.stdin)
rules.update(user=pwd.getpwuid(os.getuid()).pw_name, home=os.path.expanduser("~"))
print(json.dumps(rules))') || { echo "problem the rules can not be read"; exit 0; }

# The timer: written and started where it is not as it should be.
start_timer() {
  unit="[Unit]
Description=devbox: whether somebody works here
[Service]
Type=oneshot
ExecStart=$python -I $file $folder minute
Nice=10
TimeoutStartSec=1500"
  timer="[Unit]
Description=devbox: a look every minute
[Timer]
OnBootSec=60
OnUnitActiveSec=60
AccuracySec=5
[Install]
WantedBy=timers.target"
  at=/etc/systemd/system/devbox-idle
  [ -w /etc/systemd/system ] || [ -n "$as" ] || return 1
  if [ "$(cat $at.service 2>/dev/null)" != "$unit" ] || [ "$(cat $at.timer 2>/dev/null)" != "$timer" ]; then
    printf '%s\n' "$unit" | $as tee $at.service >/dev/null && printf '%s\n' "$timer" | $as tee $at.timer >/dev/null || return 1
    $as systemctl daemon-reload || return 1
  fi
  systemctl is-active --quiet devbox-idle.timer || $as systemctl enable --now --quiet devbox-idle.timer
}
start_loop() {
  pid=$($as cat "$folder/loop.pid" 2>/dev/null)
  [ -n "$pid" ] && [ -d "/proc/$pid" ] && return
  command -v setsid >/dev/null 2>&1 && detached=setsid || detached=
  $as $detached "$python" -I "$file" "$folder" loop >/dev/null 2>&1 </dev/null &
  echo $! | $as tee "$folder/loop.pid" >/dev/null
}
if [ -n "$here" ]; then
  if [ "$folder" = /var/lib/devbox ] && [ -d /run/systemd/system ] && start_timer 2>/dev/null; then :; else start_loop; fi
fi
$as "$python" -I "$file" "$folder" look "$rules" || echo "problem the program failed"
