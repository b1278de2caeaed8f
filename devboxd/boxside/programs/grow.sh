# Let the root file system fill its volume, which EC2 has made larger. Nothing is done where it does already.
fail() { echo "$1"; exit 1; }
as_root() { if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi; }
source=$(findmnt -no SOURCE /) || fail "the root file system can not be found"
type=$(findmnt -no FSTYPE /)
source=${source%%\[*}
disk=$(lsblk -no PKNAME "$source" 2>/dev/null | head -n 1)
if [ -n "$disk" ]; then
  number=$(cat "/sys/class/block/${source##*/}/partition" 2>/dev/null) || fail "$source is no partition"
  if command -v growpart >/dev/null 2>&1; then
    said=$(as_root growpart "/dev/$disk" "$number" 2>&1)
    case $? in 0 | 1) ;; *) fail "growpart: $said" ;; esac
  else
    echo ", +" | as_root sfdisk --no-reread -N "$number" "/dev/$disk" >/dev/null 2>&1 || fail "neither growpart nor sfdisk works"
    as_root partx -u "/dev/$disk" 2>/dev/null
  fi
fi
case $type in
  ext2 | ext3 | ext4) as_root resize2fs "$source" 2>&1 ;;
  xfs) as_root xfs_growfs / 2>&1 ;;
  btrfs) as_root btrfs filesystem resize max / 2>&1 ;;
  *) fail "a file system of type $type can not be grown" ;;
esac || fail "the file system did not grow"
