set -e
test "$(setpriv --reuid 1234 --regid 1234 --clear-groups unshare -r id -u)" = 0
unshare -rm sh -c 'mount -t tmpfs none /mnt && touch /mnt/file && test -e /mnt/file'
if test -e /mnt/file; then exit 1; fi
test "$(unshare -fp --mount-proc sh -c 'echo $$; ls -d /proc/[0-9]* | wc -l' | head -n 1)" = 1
test "$(unshare --uts sh -c 'hostname inside 2> /dev/null || echo inside > /proc/sys/kernel/hostname; cat /proc/sys/kernel/hostname')" = inside
test "$(bwrap --ro-bind / / --proc /proc --dev /dev --unshare-all --die-with-parent sh -c 'echo $((1 + 1))')" = 2
test "$(setpriv --reuid 1234 --regid 1234 --clear-groups bwrap --ro-bind / / --unshare-all id -u)" = 1234
test "$(nsenter --user=/proc/self/ns/user true 2>&1 | grep -c 'Function not implemented')" = 0
