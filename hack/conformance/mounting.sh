# mounting.sh CONTROLLERS PROGRAM: PROGRAM with a tree of control groups that has more v1
# controllers than the host has mounted. In a mount namespace of its own, TMPDIR scratch.
set -eu
new=$TMPDIR/cgroup
mkdir "$new"
mount -t tmpfs cgroup "$new"
for h in /sys/fs/cgroup/*; do
  if [ -L "$h" ]; then
    cp -P "$h" "$new/"
  elif [ -d "$h" ]; then
    mkdir "$new/${h##*/}"
    mount --bind "$h" "$new/${h##*/}"
  fi
done
for c in $1; do
  mkdir "$new/$c"
  mount -t cgroup -o "$c" "$c" "$new/$c"
done
mount --move "$new" /sys/fs/cgroup
exec "$2"
