set -e
for name in test_os test_subprocess test_threading test_signal test_mmap test_posix; do
    timeout 400 python3 -m test --timeout 200 $name > $name.log 2>&1 && continue
    echo "$name:"
    grep -E '^(FAIL|ERROR|Timeout)' $name.log | sort -u | head -n 12
    tail -n 3 $name.log
    failed=1
done
test -z "$failed"
