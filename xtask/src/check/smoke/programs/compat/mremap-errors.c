/* mremap and its relatives give the kernel's results and errors for memory that is mapped, not mapped and in between. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bad;
static long page;
static char *base;

static void *move(void *old, long old_size, long new_size, int flags, void *to)
{
    return (void *)syscall(SYS_mremap, old, old_size, new_size, (long)flags,
                           to);
}

static void expect(const char *what, long got, long want_errno)
{
    int err = got == -1 ? errno : 0;

    if (err != want_errno) {
        printf("bad: %s: %s, not %s\n", what, strerror(err),
               strerror(want_errno));
        bad = 1;
    }
}
#define WANT(e, call) expect(#call, (long)(call), e)

static void *map(int at, int pages, int prot, int flags)
{
    return mmap(base + at * page, pages * page, prot,
                flags | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static int mapped(int at)
{
    unsigned char v;
    return syscall(SYS_mincore, base + at * page, page, &v) == 0;
}

static void is(const char *what, long got, long want)
{
    if (got != want) {
        printf("bad: %s: %ld, not %ld\n", what, got, want);
        bad = 1;
    }
}
#define IS(want, what) is(#what, (long)(what), (long)(want))

int main(void)
{
    char *p;

    page = sysconf(_SC_PAGESIZE);
    base = mmap(0, 64 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(base, 64 * page);
    map(0, 2, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    map(4, 2, PROT_READ, MAP_PRIVATE);
    map(6, 2, PROT_READ | PROT_WRITE, MAP_SHARED);

    WANT(EFAULT, move(base + 2 * page, page, 2 * page, 0, 0));
    WANT(EFAULT, move(base + 2 * page, page, page, 0, 0));
    WANT(EFAULT, move(base + page, 2 * page, 3 * page, MREMAP_MAYMOVE, 0));
    WANT(EFAULT, move(base + 5 * page, 2 * page, 3 * page, 0, 0));
    WANT(ENOMEM, move(base, page, 2 * page, 0, 0));
    WANT(ENOMEM, move(base + 5 * page, page, 2 * page, 0, 0));
    WANT(EINVAL, move(base + 1, page, page, 0, 0));
    WANT(EINVAL, move(base, page, 0, MREMAP_MAYMOVE, 0));
    WANT(EINVAL, move(base, 0, page, MREMAP_MAYMOVE, 0));
    WANT(EINVAL, move(base, page, page, 16, 0));
    WANT(EINVAL, move(base, page, page, MREMAP_FIXED, base + 10 * page));
    WANT(EINVAL, move(base, page, page, 3, base + 10 * page + 1));
    WANT(EINVAL, move(base, 2 * page, 2 * page, 3, base + page));
    WANT(EINVAL, move(base, page, 2 * page, MREMAP_MAYMOVE | 4, 0));
    WANT(ENOMEM, mprotect(base + page, 2 * page, PROT_READ | PROT_WRITE));
    IS(0, mapped(2));
    WANT(ENOMEM, mlock(base + 2 * page, page));
    WANT(ENOMEM, munlock(base + 2 * page, page));
    WANT(ENOMEM, msync(base + page, 2 * page, MS_ASYNC));
    WANT(ENOMEM, madvise(base + 2 * page, page, MADV_DONTNEED));
    WANT(0, mlock(base, page));
    WANT(0, munlock(base, page));

    /* Growth and shrinking in place */
    base[page] = 'a';
    IS(base, move(base, 2 * page, 3 * page, 0, 0));
    IS(0, base[2 * page]);
    IS('a', base[page]);
    base[2 * page + 9] = 1;
    IS(base, move(base, 3 * page, page, MREMAP_MAYMOVE, 0));
    IS(0, mapped(1));
    IS(0, mapped(2));
    IS(1, mapped(0));
    /* Growth finds its place taken. */
    p = move(base + 4 * page, 2 * page, 4 * page, MREMAP_MAYMOVE, 0);
    IS(0, p == MAP_FAILED || p == base + 4 * page);
    IS(0, mapped(4));
    munmap(p, 4 * page);
    /* To a given place, over what is there */
    base[0] = 'b';
    map(20, 1, PROT_READ, MAP_PRIVATE);
    IS(base + 20 * page, move(base, page, page, 3, base + 20 * page));
    IS('b', base[20 * page]);
    base[20 * page] = 'c';
    IS(0, mapped(0));
    /* The old range stays, empty. */
    IS(base + 30 * page, move(base + 20 * page, page, page, 7,
                              base + 30 * page));
    IS('c', base[30 * page]);
    IS(0, base[20 * page]);
    /* A second view of shared memory */
    base[6 * page] = 'd';
    p = move(base + 6 * page, 0, 2 * page, MREMAP_MAYMOVE, 0);
    IS('d', p[0]);
    p[page] = 'e';
    IS('e', base[7 * page]);

    /* The way musl finds the stack's end */
    long l = 0, n = 0;
    p = (char *)((uintptr_t)&p & -page);
    while ((char *)move(p - l - page, page, 2 * page, 0, 0) == MAP_FAILED
           && errno == ENOMEM && n++ < 100000) {
        l += page;
    }
    IS(0, n >= 100000);
    expect("probe of the stack", -1, EFAULT);

    if (!bad) {
        puts("ok");
    }
    return bad;
}
