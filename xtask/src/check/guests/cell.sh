# Runs a cell in a copy of a root filesystem that vanishes with it. Arguments: the root filesystem, an empty directory to
# work in, the directory of downloaded packages, the script, a directory of files for it or nothing, the emulator's target,
# the compiler, packages to install. It runs in a mount and PID namespace of its own.
exec 2>&1
set -e
root=$1 work=$2 archives=$3 script=$4 files=$5 target=$6 compiler=$7
shift 7
# Anything in /mnt is hidden here only.
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o "userxattr,lowerdir=$root,upperdir=/mnt/upper,workdir=/mnt/work" overlay /mnt/root
mount --rbind /dev /mnt/root/dev
mount -t proc proc /mnt/root/proc
mount --rbind /sys /mnt/root/sys
mount --bind "$archives" /mnt/root/var/cache/apt/archives
# As engines do in containers.
echo '127.0.0.1 localhost' > /mnt/root/etc/hosts
mkdir /mnt/root/tmp/cell
mount --bind "$work" /mnt/root/tmp/cell
[ -z "$files" ] || cp -r "$files/." /mnt/root/tmp/cell
cp "$script" /mnt/root/tmp/cell.sh
# Unlike chroot, this allows user namespaces inside.
cd /mnt/root
pivot_root . mnt
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    DEBIAN_FRONTEND=noninteractive TARGET="$target" CC="$compiler" /bin/sh -c '
        umount --lazy /mnt
        [ $# = 0 ] || apt-get install --yes --no-install-recommends "$@" > /tmp/install.log 2>&1 || {
            absent="Unable to locate package\|Couldn.t find any package\|has no installation candidate"
            if grep -q "$absent" /tmp/install.log; then
                echo "the suite lacks a package: $*"
                exit 77
            fi
            tail -n 20 /tmp/install.log
            echo "apt-get install $* failed"
            exit 1
        }
        cd /tmp/cell
        /bin/sh /tmp/cell.sh || {
            status=$?
            # What it has not shown.
            [ $status = 77 ] || [ ! -e log ] || tail -n 8 log
            exit $status
        }' sh "$@"
