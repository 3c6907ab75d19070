set -e
cp /bin/ping ping 2> /dev/null || cp /bin/true ping
setcap cap_net_raw,cap_chown=ep ping
test "$(getcap ping)" = "ping cap_chown,cap_net_raw=ep"
cp -a ping copy
test "$(getcap copy)" = "copy cap_chown,cap_net_raw=ep"
setcap -r ping
test -z "$(getcap ping)"
# The program has the capability of its file, and nothing else, as another user.
cp /bin/chown chown
setcap cap_chown=ep chown
touch file
chmod 755 . chown
setpriv --reuid 1234 --regid 1234 --clear-groups ./chown 4321 file
test "$(stat -c %u file)" = 4321
if setpriv --reuid 1234 --regid 1234 --clear-groups chown 1 file 2> /dev/null; then exit 1; fi
