set -e
mkdir project
cd project
cat > sum.h <<'H'
long sum(const int *numbers, int count);
H
cat > sum.c <<'C'
#include "sum.h"
long sum(const int *numbers, int count) { long all = 0; while (count--) all += *numbers++; return all; }
C
cat > main.c <<'C'
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include "sum.h"
static int numbers[1000];
static void *fill(void *start) { for (int i = *(int *)start; i < 1000; i += 4) numbers[i] = i; return NULL; }
int main(void) {
    pthread_t threads[4];
    int starts[] = { 0, 1, 2, 3 };
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, fill, &starts[i]);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    printf("%ld %.6f\n", sum(numbers, 1000), sqrt(2));
}
C
cat > Makefile <<'M'
CFLAGS = -O2 -Wall -Werror -fPIC
program: main.o libsum.so; $(CC) -o $@ main.o -L. -lsum -Wl,-rpath,'$$ORIGIN' -lm -pthread
static: main.o sum.o; $(CC) -static -o $@ $^ -lm -pthread
libsum.so: sum.o; $(CC) -shared -o $@ $^
test: program static; test "`./program`" = "499500 1.414214"; test "`./static`" = "499500 1.414214"
M
make -j2 test
touch sum.c
make -j2 test | grep -q shared
# Some guests have no library for it, or one that needs libatomic.
gcc -O2 -flto -g -fsanitize=undefined -o checked main.c sum.c -lm -pthread 2> message ||
    grep -q 'cannot find.*ubsan\|libubsan.so: undefined reference' message
