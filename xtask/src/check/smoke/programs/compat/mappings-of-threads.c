// A system call finds its buffer while another thread maps and unmaps memory beside it.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static atomic_int done;
static char *area;
static size_t page;

static void *map_and_unmap(void *unused)
{
    while (!done) {
        munmap(area, page);
        mmap(area, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    }
    return NULL;
}

int main(void)
{
    int null = open("/dev/null", O_WRONLY);
    pthread_t thread;

    page = sysconf(_SC_PAGESIZE);
    area = mmap(NULL, 8 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    // Of another kind, so that the buffer is in two.
    mprotect(area + 4 * page, 4 * page, PROT_READ);
    pthread_create(&thread, NULL, map_and_unmap, NULL);
    for (int i = 0; i < 200000; i++) {
        if (write(null, area + 3 * page, 2 * page) != (ssize_t)(2 * page)) {
            printf("write %d of a buffer in two mappings: %s\n", i, strerror(errno));
            return 1;
        }
    }
    done = 1;
    pthread_join(thread, NULL);
    puts("ok");
    return 0;
}
