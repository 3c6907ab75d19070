# Makes a root filesystem. Arguments: the directory of debootstrap, its own arguments up to the directory, the directory,
# the mirror, and what `uname -m` prints under the emulator.
exec 2>&1
set -e
debootstrap=$1 arch=$2 suite=$3 root=$4 mirror=$5 machine=$6
mkdir -p "$root/dev"
# No user namespace allows to create devices; debootstrap takes those that are there if it seems to run in a container.
mount --rbind /dev "$root/dev"
export container=lxc DEBOOTSTRAP_DIR="$debootstrap/usr/share/debootstrap"
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
log=$root/debootstrap/debootstrap.log
/bin/sh "$debootstrap/usr/sbin/debootstrap" --variant=minbase "--arch=$arch" "$suite" "$root" "$mirror" || {
    # A mirror that is being updated.
    if absent=$(grep -B1 'ERROR 404' "$log" | head -n 1) && test -n "$absent"; then
        echo "the mirror lacks $absent"
        exit 77
    fi
    tail -n 20 "$log"
    exit 1
}
test "$(chroot "$root" dpkg --print-architecture)" = "$arch"
test "$(chroot "$root" uname -m)" = "$machine"
test -z "$(chroot "$root" dpkg --audit)"
