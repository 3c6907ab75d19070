set -e
box() { busybox "$@"; }
test "$(box seq 5 | box sort -r | box head -n 1)" = 5
test "$(echo 'one two' | box sed 's/two/three/')" = "one three"
test "$(box seq 100 | box awk '{ sum += $1 } END { print sum }')" = 5050
box seq 10000 > numbers
box gzip -c numbers | box gunzip -c | box cmp - numbers
test "$(box sha256sum < numbers)" = "$(sha256sum < numbers)"
box tar -cf archive.tar numbers
mkdir out
box tar -xf archive.tar -C out
cmp numbers out/numbers
test "$(box sh -c 'echo $((6 * 7)) | busybox cat')" = 42
box vi --help 2> /dev/null || test $? -lt 126
