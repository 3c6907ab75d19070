/* A program in an address space of limited size has what the limit leaves, and its errors are its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <unistd.h>

static int bad;
static sigjmp_buf back;

#define CHECK(what, is, want) do { \
    long long is_ = (is), want_ = (want); \
    if (is_ != want_) { printf("%s: %lld, not %lld\n", what, is_, want_); bad = 1; } \
} while (0)

static void segv(int sig)
{
    siglongjmp(back, sig);
}

static int can_read(uintptr_t address)
{
    if (sigsetjmp(back, 1)) {
        return 0;
    }
    return *(volatile char *)address, 1;
}

static void *thread(void *arg)
{
    memset(arg, 2, 1 << 20);
    return NULL;
}

int main(void)
{
    static char *blocks[4096];
    int n;
    pthread_t threads[8];
    char *p;

    signal(SIGSEGV, segv);
    /* Nothing is there, whether the emulator has reserved the place or not. */
    for (uintptr_t address = 0xa0000000; address < 0xf0000000; address += 0x1000000) {
        if (can_read(address)) {
            unsigned char in_core;
            /* It may be the program's own. */
            CHECK("a mapping where there is none", mincore((void *)(address & -4096), 4096, &in_core), 0);
        }
    }
    p = mmap((void *)(uintptr_t)0xb0000000, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    if (p != MAP_FAILED) {
        CHECK("address of a fixed mapping", (uintptr_t)p, 0xb0000000);
        memset(p, 1, 1 << 20);
        CHECK("munmap", munmap(p, 1 << 20), 0);
        CHECK("what was unmapped", can_read(0xb0000000), 0);
    }

    for (int i = 0; i < 8; i++) {
        p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK("mmap", p == MAP_FAILED, 0);
        CHECK("pthread_create", pthread_create(&threads[i], NULL, thread, p), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(threads[i], NULL);
    }
    int id = shmget(IPC_PRIVATE, 1 << 20, 0600 | IPC_CREAT);
    p = shmat(id, NULL, 0);
    CHECK("shmat", p == (void *)-1, 0);
    if (p != (void *)-1) {
        memset(p, 1, 1 << 20);
        shmdt(p);
    }
    shmctl(id, IPC_RMID, NULL);

    /* It ends in an orderly way, and memory that is given back can be had again. */
    for (n = 0; n < 4096; n++) {
        blocks[n] = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (blocks[n] == MAP_FAILED) {
            CHECK("errno", errno, ENOMEM);
            break;
        }
    }
    CHECK("more than 500 MB", n > 500, 1);
    for (int i = 0; i < n; i++) {
        munmap(blocks[i], 1 << 20);
    }
    p = mmap(NULL, 200 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK("200 MB", p == MAP_FAILED, 0);
    if (p != MAP_FAILED) {
        p = mremap(p, 200 << 20, 300 << 20, MREMAP_MAYMOVE);
        CHECK("300 MB", p == MAP_FAILED, 0);
    }
    if (!bad) {
        puts("ok");
    }
    return bad;
}
