/* The break of a program grows by 80 MB and more, however the program is linked and started. */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int main(void)
{
    char *start = sbrk(0), *p;
    int bad = 0;

    for (int i = 0; i < 80; i++) {
        p = sbrk(1 << 20);
        if (p == (void *)-1) {
            printf("The break at %p does not grow by more than %d MB.\n", (void *)start, i);
            return 1;
        }
        p[0] = p[(1 << 20) - 1] = 1;
    }
    /* What is mapped afterwards comes elsewhere. */
    for (int i = 0; i < 20; i++) {
        mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }
    if (sbrk(1 << 20) == (void *)-1) {
        puts("The break does not grow after mappings.");
        bad = 1;
    }
    if (sbrk(-(81 << 20)) == (void *)-1 || sbrk(0) != start) {
        puts("The break does not shrink.");
        bad = 1;
    }
    if (!bad) {
        puts("ok");
    }
    return bad;
}
