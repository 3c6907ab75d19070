set -e
cat > sums.c <<'C'
#include <pthread.h>
#include <stdio.h>

static int add(int sum, int number) {
    return sum + number;
}

static void *add_all(void *sum) {
    for (int number = 0; number < 5; number++)
        *(int *)sum = add(*(int *)sum, number);
    return NULL;
}

int main(void) {
    int sum = 0;
    pthread_t thread;
    pthread_create(&thread, NULL, add_all, &sum);
    pthread_join(thread, NULL);
    printf("%d\n", sum);
    return 3;
}
C
gcc -g -O0 -pthread -o sums sums.c
QEMU_GDB=/tmp/cell/socket ./sums > out &
until [ -S socket ]; do sleep 0.1; done
# A breakpoint in a thread, its stack, a watched variable, and the exit status.
gdb --batch -ex 'target remote /tmp/cell/socket' -ex 'break add if number == 3' -ex continue -ex backtrace \
    -ex 'print sum + number' -ex finish -ex 'info threads' -ex delete -ex continue sums > log 2>&1
grep -q '#1 .*add_all' log
grep -q '^\$1 = 6$' log
grep -q 'Value returned is \$2 = 6' log
grep -q 'exited with code 03' log
status=0
wait $! || status=$?
test $status = 3
test "$(cat out)" = 10
