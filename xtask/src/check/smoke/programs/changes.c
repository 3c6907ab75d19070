/*
 * Changes code that an emulator has translated, with several threads and processes, and exits the first thread before
 * another. Each line of output is one case; without an emulator, the output is the same.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* A multiple of the page size of every host. */
#define SIZE 65536
#define ALL (PROT_READ | PROT_WRITE | PROT_EXEC)
#define TIMES 2000000

static sigjmp_buf before;
static char *first, *second;

static void put32(char *at, uint32_t word)
{
    memcpy(at, &word, 4);
}

/* Writes a jump to the code that is `by` bytes away. */
static void put_jump(char *at, uint32_t by)
{
#if defined(__aarch64__)
    put32(at, 0x14000000 | by >> 2);
#elif defined(__arm__)
    put32(at, 0xea000000 | (by - 8) >> 2);
#elif defined(__x86_64__) || defined(__i386__)
    at[0] = 0xe9;
    put32(at + 1, by - 5);
#elif defined(__riscv)
    put32(at, 0x6f | (by & 0xff000) | (by & 0x7fe) << 20 | (by & 0x800) << 9 | (by & 0x100000) << 11);
#elif defined(__powerpc64__)
    put32(at, 0x48000000 | by);
#elif defined(__s390x__)
    memcpy(at, "\xc0\xf4", 2);
    put32(at + 2, by >> 1);
#elif defined(__loongarch__)
    put32(at, 0x50000000 | (by >> 2 & 0xffff) << 10 | by >> 18);
#endif
    __builtin___clear_cache(at, at + 8);
}

/* Writes a function that returns a small number. */
static void put_function(char *at, uint32_t number)
{
#if defined(__aarch64__)
    put32(at, 0x52800000 | number << 5);
    put32(at + 4, 0xd65f03c0);
#elif defined(__arm__)
    put32(at, 0xe3a00000 | number);
    put32(at + 4, 0xe12fff1e);
#elif defined(__x86_64__) || defined(__i386__)
    at[0] = 0xb8;
    put32(at + 1, number);
    at[5] = 0xc3;
#elif defined(__riscv)
    put32(at, 0x513 | number << 20);
    put32(at + 4, 0x8067);
#elif defined(__powerpc64__)
    put32(at, 0x38600000 | number);
    put32(at + 4, 0x4e800020);
#elif defined(__s390x__)
    put32(at, 0xa7290000 | number);
    memcpy(at + 4, "\x07\xfe", 2);
#elif defined(__loongarch__)
    put32(at, 0x02800004 | number << 10);
    put32(at + 4, 0x4c000020);
#endif
    __builtin___clear_cache(at, at + 8);
}

static void caught(int number)
{
    siglongjmp(before, number);
}

static void call(const char *what)
{
    int number = 0;

    if (sigsetjmp(before, 1)) {
        printf("%s: a signal\n", what);
        return;
    }
    /* Often enough for an emulator to chain the translated code of both pages. */
    for (int i = 0; i < 1000; i++)
        number = ((int (*)(void))first)();
    printf("%s: %d\n", what, number);
}

static void jumps(void)
{
    char *moved;

    signal(SIGSEGV, caught);
    signal(SIGBUS, caught);
    first = mmap(0, 3 * SIZE, ALL, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    second = first + 2 * SIZE;
    put_jump(first, 2 * SIZE);
    put_function(second, 1);
    mprotect(first, SIZE, PROT_READ | PROT_EXEC);
    mprotect(second, SIZE, PROT_READ | PROT_EXEC);
    call("a jump to another page");
    mprotect(second, SIZE, PROT_READ | PROT_WRITE);
    put_function(second, 2);
    mprotect(second, SIZE, PROT_READ | PROT_EXEC);
    call("made writable, written, made executable");
    mmap(second, SIZE, ALL, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    put_function(second, 3);
    call("replaced by another mapping");
    put_function(second, 4);
    call("written while executable");
    mprotect(second, SIZE, PROT_NONE);
    call("not accessible");
    mprotect(second, SIZE, PROT_READ | PROT_EXEC);
    call("executable again");
    munmap(second, SIZE);
    call("unmapped");
    mmap(second, SIZE, ALL, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    put_function(second, 5);
    call("mapped again");
    moved = mmap(0, SIZE, ALL, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    put_function(moved, 6);
    mremap(moved, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, second);
    call("another mapping moved there");
}

/* The same code for one thread first, and then for several. */
__attribute__((noinline)) static void count(int *counter)
{
    for (int i = 0; i < TIMES; i++)
        __atomic_add_fetch(counter, 1, __ATOMIC_SEQ_CST);
}

static void *count_in_thread(void *counter)
{
    count(counter);
    return 0;
}

static void *outlive(void *other)
{
    pthread_join(*(pthread_t *)other, 0);
    printf("the first thread exits first\n");
    return 0;
}

int main(int argc, char **argv)
{
    static pthread_t self, last;
    int counter = 0, *shared;
    pthread_t threads[4];

    setvbuf(stdout, 0, _IONBF, 0);
    count(&counter);
    printf("one thread: %d\n", counter);
    if (argc > 1 && !strcmp(argv[1], "threads")) {
        for (int i = 0; i < 4; i++)
            pthread_create(&threads[i], 0, count_in_thread, &counter);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], 0);
        printf("four more threads: %d\n", counter);
        jumps();
        self = pthread_self();
        pthread_create(&last, 0, outlive, &self);
        pthread_exit(0);
    } else {
        shared = mmap(0, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        for (int i = 0; i < 4; i++) {
            if (fork() == 0) {
                count(shared);
                _exit(0);
            }
        }
        while (wait(0) > 0)
            ;
        printf("four processes: %d\n", *shared);
        jumps();
        return 0;
    }
}
