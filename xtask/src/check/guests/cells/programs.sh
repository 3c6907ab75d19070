# Each program prints ok, or what differs from Linux; status 77 is that of one that does not know this architecture.
for source in *.c; do
    program=./${source%.c}
    limit=unlimited
    [ "$program" != ./limited-address-space ] || limit=2000000
    if ! $CC -O2 -w -pthread -o "$program" "$source" 2> message; then
        echo "$program is not compiled: $(head -n 1 message)"
        failed=1
        continue
    fi
    mkdir "$program.d"
    output=$(cd "$program.d" && ulimit -v $limit && timeout 60 ".$program" 2>&1)
    [ $? = 77 ] || [ "$output" = ok ] || { echo "$program: $output"; failed=1; }
done
test -z "$failed"
