set -e
cp /bin/sleep ./slumber
./slumber 300 &
child=$!
sleep 1
test "$(pgrep slumber)" = $child
test "$(pgrep -f 'slumber 300')" = $child
test "$(pidof slumber)" = $child
test "$(ps -o comm= -p $child)" = slumber
test "$(ps -o args= -p $child)" = "./slumber 300"
test "$(readlink /proc/$child/exe)" = "$PWD/slumber"
test "$(tr '\0' ' ' < /proc/$child/cmdline)" = "./slumber 300 "
killall slumber
if wait $child; then exit 1; fi
if kill -0 $child 2> /dev/null; then exit 1; fi
