/* The kernel's asynchronous I/O: reads, writes, vectors, eventfd, polls, time-outs and errors. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int bad;
#define WRONG(...) (printf(__VA_ARGS__), printf(" (%s)\n", strerror(errno)), bad++)
static aio_context_t ctx;

static long submit(struct iocb *cb) { return syscall(SYS_io_submit, ctx, 1L, &cb); }

/* The result of the one request in flight, which must be cb. */
static long long finish(struct iocb *cb) {
    struct io_event ev = { 0 };
    if (syscall(SYS_io_getevents, ctx, 1L, 1L, &ev, NULL) != 1) { WRONG("io_getevents"); return -1; }
    if (ev.obj != (uintptr_t)cb) WRONG("the event is of another request");
    if (ev.data != cb->aio_data) WRONG("data %llx", (unsigned long long)ev.data);
    return ev.res;
}

int main(void) {
    char name[] = "/tmp/aioXXXXXX", buf[16] = "", c[4] = "", d[4] = "";
    int fd = mkstemp(name), e = eventfd(0, EFD_NONBLOCK), p[2];
    struct iovec v[2] = { { c, 3 }, { d, 3 } };
    uint64_t count = 0;
    unlink(name);
    if (syscall(SYS_io_setup, 0, &ctx) != -1 || errno != EINVAL) WRONG("io_setup of no events");
    if (syscall(SYS_io_setup, 16, (void *)4) != -1 || errno != EFAULT) WRONG("io_setup at a bad address");
    if (syscall(SYS_io_setup, 16, &ctx)) { WRONG("io_setup"); return 1; }
    if (syscall(SYS_io_setup, 16, &ctx) != -1 || errno != EINVAL) WRONG("io_setup of a context in use");
    (void)*(volatile unsigned *)(uintptr_t)ctx; /* as libaio does */

    struct iocb w = { .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_buf = (uintptr_t)"abcdef", .aio_nbytes = 6, .aio_offset = 100,
        .aio_data = 0x1122334455667788ull, .aio_flags = IOCB_FLAG_RESFD, .aio_resfd = e };
    if (submit(&w) != 1 || finish(&w) != 6) WRONG("write");
    if (read(e, &count, 8) != 8 || count != 1) WRONG("eventfd %llu", (unsigned long long)count);
    struct iocb r = { .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_buf = (uintptr_t)buf, .aio_nbytes = 16, .aio_offset = 101, .aio_data = 2 };
    if (submit(&r) != 1 || finish(&r) != 5 || strcmp(buf, "bcdef")) WRONG("read %s", buf);
    struct iocb rv = { .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_PREADV, .aio_buf = (uintptr_t)v, .aio_nbytes = 2, .aio_offset = 100, .aio_data = 3 };
    if (submit(&rv) != 1 || finish(&rv) != 6 || strcmp(c, "abc") || strcmp(d, "def")) WRONG("readv %s %s", c, d);
    struct iocb s = { .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_FDSYNC, .aio_data = 4 };
    if (submit(&s) == 1 && finish(&s)) WRONG("fdsync");

    struct iocb o = { .aio_fildes = -1, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_buf = (uintptr_t)buf, .aio_nbytes = 1 };
    if (submit(&o) != -1 || errno != EBADF) WRONG("a bad descriptor");
    struct iocb *list[] = { &r, &o, &r };
    if (syscall(SYS_io_submit, ctx, 3L, list) != 1 || finish(&r) != 5) WRONG("a list with a bad request");
    if (syscall(SYS_io_submit, ctx, 1L, (void *)4) != -1 || errno != EFAULT) WRONG("a list at a bad address");
    if (syscall(SYS_io_submit, ctx + 1, 0L, list) != -1 || errno != EINVAL) WRONG("a bad context");

    struct io_event ev[4];
    struct timespec t = { 0, 10000000 };
    if (syscall(SYS_io_getevents, ctx, 1L, 4L, ev, &t)) WRONG("time-out");
    if (syscall(SYS_io_getevents, ctx, 3L, 2L, ev, &t) != -1 || errno != EINVAL) WRONG("more events than fit");

    if (pipe(p)) return 1;
    struct iocb l = { .aio_fildes = p[0], .aio_lio_opcode = IOCB_CMD_POLL, .aio_buf = POLLIN, .aio_data = 5 };
    if (submit(&l) != 1) WRONG("poll");
    if (write(p[1], "x", 1) != 1 || !(finish(&l) & POLLIN)) WRONG("result of poll");
    if (read(p[0], c, 1) != 1 || submit(&l) != 1) WRONG("poll again");
    if (syscall(SYS_io_cancel, ctx, &l, ev) != -1 || errno != EINPROGRESS) WRONG("io_cancel");
    finish(&l);
    if (syscall(SYS_io_cancel, ctx, &l, ev) != -1 || errno != EINVAL) WRONG("io_cancel of what is done");

    pid_t child = fork();
    if (!child) _exit(syscall(SYS_io_submit, ctx, 1L, list) == -1 && errno == EINVAL ? 0 : 1);
    int status; waitpid(child, &status, 0);
    if (status) WRONG("a child uses the context of its parent");
    if (syscall(SYS_io_destroy, ctx)) WRONG("io_destroy");
    if (syscall(SYS_io_destroy, ctx) != -1 || errno != EINVAL) WRONG("io_destroy twice");
    if (!bad) puts("ok");
    return bad != 0;
}
