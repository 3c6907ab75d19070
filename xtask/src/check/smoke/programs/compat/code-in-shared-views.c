/* Code that is changed through another view of the same memory runs in its new form, whatever the views are and when they come. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SIZE = 65536, FAR = 40000 };
static int bad;

static size_t code(uint8_t *w, int n)
{
#if defined(__aarch64__)
    uint32_t c[] = { 0x52800000u | n << 5, 0xd65f03c0u };
#elif defined(__arm__)
    uint32_t c[] = { 0xe3a00000u | n, 0xe12fff1eu };
#elif defined(__riscv)
    uint32_t c[] = { 0x00000513u | n << 20, 0x00008067u };
#elif defined(__s390x__)
    uint8_t c[] = { 0xa7, 0x29, 0, n, 0x07, 0xfe };
#elif defined(__x86_64__) || defined(__i386__)
    uint8_t c[] = { 0xb8, n, 0, 0, 0, 0xc3 };
#elif defined(__loongarch64)
    uint32_t c[] = { 0x03800004u | n << 10, 0x4c000020u };
#elif defined(__mips__)
    /* The second instruction is in the delay slot of the first. */
    uint32_t c[] = { 0x03e00008u, 0x24020000u | n };
#elif defined(__powerpc64__) && _CALL_ELF == 2
    uint32_t c[] = { 0x38600000u | n, 0x4e800020u };
#else
    uint8_t c[1];
    puts("no code for this machine");
    exit(77);
#endif
    memcpy(w, c, sizeof(c));
    return sizeof(c);
}

static int run(uint8_t *x)
{
    __builtin___clear_cache((char *)x, (char *)x + 16);
    return ((int (*)(void))x)();
}

static void fail(const char *what, int got, int want)
{
    if (!bad || got != want) {
        printf("bad: %s: %d, not %d (%s)\n", what, got, want, strerror(errno));
    }
    bad = 1;
}

static void check(const char *what, uint8_t *w, uint8_t *x)
{
    if (w == MAP_FAILED || x == MAP_FAILED) {
        fail(what, -1, 0);
        return;
    }
    for (int i = 1; i < 50; i++) {
        uint8_t *far = x + FAR;
        code(w + 64, i);
        code(w + FAR, 100 - i);
        if (run(x + 64) != i || run(far) != 100 - i) {
            fail(what, run(x + 64), i);
            return;
        }
    }
}

static uint8_t *view(int fd, int prot, long offset)
{
    return mmap(0, SIZE, prot, MAP_SHARED, fd, offset);
}

static uint8_t *g_w, *g_x;

static void *writer(void *arg)
{
    code(g_w + 64, (int)(intptr_t)arg);
    return NULL;
}

static void files(const char *what, int fd)
{
    uint8_t *w, *x, *y;
    int status;

    if (fd < 0 || ftruncate(fd, 2 * SIZE)) {
        fail(what, -1, 0);
        return;
    }
    w = view(fd, PROT_READ | PROT_WRITE, 0);
    x = view(fd, PROT_READ | PROT_EXEC, 0);
    check(what, w, x);

    /* A view that comes when the code has run, at another offset */
    munmap(w, SIZE);
    for (int i = 1; i < 5; i++) {
        w = view(fd, PROT_READ | PROT_WRITE, 32768);
        code(w + FAR - 32768, i);
        munmap(w, SIZE);
        if (run(x + FAR) != i) {
            fail("a short-lived view", run(x + FAR), i);
            break;
        }
    }

    /* A view that becomes writable, one that becomes executable */
    w = view(fd, PROT_READ, 0);
    y = view(fd, PROT_READ | PROT_WRITE, 0);
    for (int i = 1; i < 5; i++) {
        mprotect(w, SIZE, PROT_READ | PROT_WRITE);
        code(w + 64, i);
        mprotect(w, SIZE, PROT_READ);
        if (run(x + 64) != i) {
            fail("a view made writable", run(x + 64), i);
            break;
        }
        code(y + 64, i + 10);
        mprotect(w, SIZE, PROT_READ | PROT_EXEC);
        if (run(w + 64) != i + 10 || run(x + 64) != i + 10) {
            fail("a view made executable", run(w + 64), i + 10);
            break;
        }
    }

    /* A system call and another thread write. */
    int p[2];
    uint8_t buf[16];
    size_t n = code(buf, 77);
    if (!pipe(p) && write(p[1], buf, n) == (ssize_t)n &&
        read(p[0], y + 64, n) == (ssize_t)n) {
        if (run(x + 64) != 77) {
            fail("read() into a view", run(x + 64), 77);
        }
    }
    close(p[0]);
    close(p[1]);
    g_w = y;
    g_x = x;
    for (int i = 1; i < 10; i++) {
        pthread_t t;
        pthread_create(&t, 0, writer, (void *)(intptr_t)i);
        pthread_join(t, 0);
        if (run(x + 64) != i) {
            fail("a thread writes", run(x + 64), i);
            break;
        }
    }
    pid_t pid = fork();
    if (!pid) {
        check("in a child", y, x);
        _exit(bad);
    }
    waitpid(pid, &status, 0);
    bad |= status != 0;

    /* Moved views */
    void *hole = mmap(0, 4 * SIZE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
                      -1, 0);
    y = mremap(y, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, hole);
    check("a moved writable view", y, x);
    x = mremap(x, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED,
               (char *)hole + SIZE);
    check("a moved executable view", y, x);
    munmap(hole, 4 * SIZE);
    munmap(w, SIZE);
    close(fd);
}

int main(void)
{
    uint8_t *w, *x;
    char name[] = "/tmp/views-XXXXXX";
    int fd = mkstemp(name), id;

    unlink(name);
    files("a file", fd);
    files("a memory file", memfd_create("views", MFD_CLOEXEC));

    fd = memfd_create("views", 0);
    if (!ftruncate(fd, SIZE)) {
        w = view(fd, PROT_READ | PROT_WRITE | PROT_EXEC, 0);
        x = view(fd, PROT_READ | PROT_WRITE | PROT_EXEC, 0);
        check("two views for everything", w, x);
        check("two views for everything, reversed", x, w);
        check("one of them", x, x);
    }

    id = shmget(IPC_PRIVATE, SIZE, 0700 | IPC_CREAT);
    w = shmat(id, 0, 0);
    x = shmat(id, 0, SHM_EXEC);
    shmctl(id, IPC_RMID, 0);
    check("shared memory segments", w, x);

    w = mmap(0, SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    x = mremap(w, 0, SIZE, MREMAP_MAYMOVE);
    check("a copied mapping", w, x);

    if (!bad) {
        puts("ok");
    }
    return bad;
}
