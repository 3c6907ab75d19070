set -e
# Node.js and others ask for the stack of the first thread; musl finds its end by mremap.
cat > stack.c <<'C'
#define _GNU_SOURCE
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
static void *check(void *unused) {
    pthread_attr_t attributes;
    void *start;
    size_t size;
    if (pthread_getattr_np(pthread_self(), &attributes) || pthread_attr_getstack(&attributes, &start, &size)) return NULL;
    uintptr_t here = (uintptr_t)&attributes;
    return (void *)(here >= (uintptr_t)start && here < (uintptr_t)start + size && size >= 65536);
}
int main(void) {
    pthread_t thread;
    void *other;
    pthread_create(&thread, NULL, check, NULL);
    pthread_join(thread, &other);
    printf("%d %d\n", check(NULL) != NULL, other != NULL);
}
C
musl-gcc -O2 -static -o static stack.c
musl-gcc -O2 -o dynamic stack.c
for program in ./static ./dynamic; do
    test "$(timeout 20 $program)" = "1 1"
done
