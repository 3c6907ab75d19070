/* Newer and rarer system calls: each does what the kernel does, or fails as on a kernel where it is not allowed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <mqueue.h>

/* Numbers that all architectures share but Alpha, and MIPS for its first number. */
#ifdef __mips__
#define FIRST __NR_Linux
#elif defined(__alpha__)
#define FIRST 110
#else
#define FIRST 0
#endif
enum { NR_io_uring_setup = FIRST + 425, NR_io_uring_enter, NR_fsopen = FIRST + 430, NR_fsconfig, NR_fsmount,
    NR_pidfd_open = FIRST + 434, NR_process_madvise = FIRST + 440, NR_epoll_pwait2, NR_mount_setattr,
    NR_landlock_create_ruleset = FIRST + 444, NR_landlock_add_rule, NR_landlock_restrict_self, NR_memfd_secret,
    NR_futex_waitv = FIRST + 449, NR_cachestat = FIRST + 451, NR_futex_wake = FIRST + 454, NR_futex_wait,
    NR_statmount = FIRST + 457, NR_listmount, NR_setxattrat = FIRST + 463, NR_getxattrat, NR_listxattrat,
    NR_removexattrat, NR_file_getattr = FIRST + 468 };

static int bad;
#define WRONG(...) (printf(__VA_ARGS__), printf(" (%s)\n", strerror(errno)), bad++)

struct time64 { int64_t seconds, nanoseconds; };
static volatile int signalled, value;

static void on_signal(int number, siginfo_t *info, void *context) {
    signalled = number;
    value = info->si_value.sival_int;
}

static volatile int notified;
static void on_message(union sigval v) { notified = v.sival_int; }

static void vectors(void) {
    char name[] = "/tmp/lateXXXXXX", a[4] = "", b[4] = "";
    int fd = mkstemp(name), p[2];
    unlink(name);
    struct iovec out[2] = { { "abc", 3 }, { "def", 3 } }, in[2] = { { a, 3 }, { b, 3 } };
    if (pwritev2(fd, out, 2, 10, 0) != 6) WRONG("pwritev2");
    if (preadv2(fd, in, 2, 10, 0) != 6 || strcmp(a, "abc") || strcmp(b, "def")) WRONG("preadv2 %s %s", a, b);
    if (lseek(fd, 10, SEEK_SET) != 10 || preadv2(fd, in, 2, -1, 0) != 6 || lseek(fd, 0, SEEK_CUR) != 16) WRONG("preadv2 at the file's position");
    if (pwritev2(fd, out, 1, (off_t)1, 0x4000000) != -1 || errno != EOPNOTSUPP) WRONG("an unknown flag");
    if (preadv2(fd, (void *)4, 1, 0, 0) != -1 || errno != EFAULT) WRONG("preadv2 of a bad address");
    if (pipe(p) || preadv2(p[0], in, 1, -1, 8 /* RWF_NOWAIT */) != -1 || (errno != EAGAIN && errno != EOPNOTSUPP)) WRONG("RWF_NOWAIT");
    struct { uint64_t offset, length; } range = { 0, 4096 };
    uint64_t stat[5] = { 0 };
    if (syscall(NR_cachestat, fd, &range, stat, 0) || stat[0] > 1) WRONG("cachestat: %llu", (unsigned long long)stat[0]);
}

static void polls(void) {
    int ep = epoll_create1(0), e = eventfd(0, 0);
    struct epoll_event ev = { .events = EPOLLIN, .data.u64 = 0x123456789abcdefull }, got = { 0 };
    struct time64 t = { 0, 20000000 };
    epoll_ctl(ep, EPOLL_CTL_ADD, e, &ev);
    if (syscall(NR_epoll_pwait2, ep, &got, 1, &t, NULL, 8)) WRONG("epoll_pwait2 without an event");
    uint64_t one = 1;
    if (write(e, &one, 8) != 8 || syscall(NR_epoll_pwait2, ep, &got, 1, NULL, NULL, 8) != 1 || got.data.u64 != ev.data.u64)
        WRONG("epoll_pwait2");
    t.nanoseconds = 2000000000;
    if (syscall(NR_epoll_pwait2, ep, &got, 1, &t, NULL, 8) != -1 || errno != EINVAL) WRONG("epoll_pwait2 with a bad time");

    struct { uint64_t value, address; uint32_t flags, reserved; } w[2] = { { 0 } };
    uint32_t words[2] = { 0x01020304, 5 };
    for (int i = 0; i < 2; i++) { w[i].value = words[i]; w[i].address = (uintptr_t)&words[i]; w[i].flags = 2 | 128; }
    struct time64 until;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    until.seconds = now.tv_sec; until.nanoseconds = now.tv_nsec;
    if (syscall(NR_futex_waitv, w, 2, 0, &until, CLOCK_MONOTONIC) != -1 || errno != ETIMEDOUT) WRONG("futex_waitv");
    w[0].value = 0x04030201;
    if (syscall(NR_futex_waitv, w, 2, 0, &until, CLOCK_MONOTONIC) != -1 || errno != EAGAIN) WRONG("futex_waitv of another value");
    if (syscall(NR_futex_wake, &words[0], 0xffffffffL, 1, 2 | 128)) WRONG("futex_wake");
    if (syscall(NR_futex_wait, &words[0], 7L, 0xffffffffL, 2 | 128, NULL, CLOCK_MONOTONIC) != -1 || errno != EAGAIN) WRONG("futex_wait");
}

static void keys(void) {
    int ring = syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, "late");
    if (ring < 0) { if (errno != EDQUOT && errno != EPERM) WRONG("join a keyring"); return; }
    int key = syscall(SYS_add_key, "user", "late:key", "secret", 6L, ring);
    char buf[64] = "";
    if (key < 0) { WRONG("add_key"); return; }
    if (syscall(SYS_keyctl, 11 /* READ */, key, buf, sizeof buf) != 6 || strcmp(buf, "secret")) WRONG("read a key: %s", buf);
    if (syscall(SYS_keyctl, 10 /* SEARCH */, ring, "user", "late:key", 0) != key) WRONG("search a key");
    memset(buf, 0, sizeof buf);
    if (syscall(SYS_keyctl, 6 /* DESCRIBE */, key, buf, sizeof buf) < 10 || strncmp(buf, "user;", 5)) WRONG("describe: %s", buf);
    int held[4] = { 0 };
    if (syscall(SYS_keyctl, 11, ring, held, sizeof held) != 4 || held[0] != key) WRONG("a keyring holds %x, not %x", held[0], key);
    if (syscall(SYS_keyctl, 2 /* UPDATE */, key, "new", 3L) || syscall(SYS_keyctl, 11, key, NULL, 0L) != 3) WRONG("update");
    if (syscall(SYS_request_key, "user", "late:key", NULL, 0) != key) WRONG("request_key");
    if (syscall(SYS_keyctl, 9 /* UNLINK */, key, ring)) WRONG("unlink");
    if (syscall(SYS_add_key, "user", "x", (void *)4, 6L, ring) != -1 || errno != EFAULT) WRONG("add_key from a bad address");
}

static void memory(void) {
    char from[] = "copied", to[8] = "";
    struct iovec l = { to, sizeof from }, r = { from, sizeof from };
    if (process_vm_readv(getpid(), &l, 1, &r, 1, 0) != sizeof from || strcmp(to, from)) WRONG("process_vm_readv %s", to);
    pid_t child = fork();
    if (!child) { pause(); _exit(0); }
    strcpy(to, "parent");
    if (process_vm_readv(child, &l, 1, &r, 1, 0) != sizeof from || strcmp(to, "copied")) WRONG("process_vm_readv of a child: %s", to);
    strcpy(to, "change");
    if (process_vm_writev(child, &l, 1, &r, 1, 0) != sizeof from) WRONG("process_vm_writev");
    if (process_vm_readv(child, &l, 1, &r, 1, 0) != sizeof from || strcmp(to, "change") || strcmp(from, "copied")) WRONG("what was written: %s", to);
    r.iov_base = (void *)4;
    if (process_vm_readv(child, &l, 1, &r, 1, 0) != -1 || errno != EFAULT) WRONG("process_vm_readv of a bad address");
    int fd = syscall(NR_pidfd_open, child, 0);
    struct iovec page = { (void *)((uintptr_t)from & -4096L), 4096 };
    if (syscall(NR_process_madvise, fd, &page, 1L, 20 /* MADV_COLD */, 0) != 4096 && errno != EPERM) WRONG("process_madvise");
    kill(child, SIGKILL); waitpid(child, NULL, 0);

    int mode = -1;
    unsigned long nodes[64] = { 0 };
    if (syscall(SYS_get_mempolicy, &mode, nodes, 2048L, NULL, 0L)) { if (errno != ENOSYS) WRONG("get_mempolicy"); }
    else if (mode) WRONG("the policy is %d", mode);
    if (!syscall(SYS_get_mempolicy, NULL, nodes, 2048L, NULL, 4L /* MEMS_ALLOWED */)) {
        if (!(nodes[0] & 1)) WRONG("node 0 is not allowed: %lx", nodes[0]);
        nodes[0] = 1;
        if (syscall(SYS_set_mempolicy, 2 /* BIND */, nodes, 64L)) WRONG("set_mempolicy");
        nodes[0] = 0;
        if (syscall(SYS_get_mempolicy, &mode, nodes, 2048L, NULL, 0L) || mode != 2 || nodes[0] != 1) WRONG("policy %d of %lx", mode, nodes[0]);
        syscall(SYS_set_mempolicy, 0, NULL, 0L);
        void *m = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (syscall(SYS_mbind, m, 65536L, 2, nodes, 64L, 0)) WRONG("mbind");
        *(volatile char *)m = 1;
        int status = -1;
        if (syscall(SYS_move_pages, 0, 1L, &m, NULL, &status, 0) || status != 0) WRONG("move_pages: %d", status);
    }
    int key = syscall(SYS_pkey_alloc, 0, 0);
    // Without keys in the processor, an x86 kernel fails with EINVAL, others with ENOSPC.
    if (key < 0 && errno != ENOSPC && errno != EINVAL) WRONG("pkey_alloc");
    void *m = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (syscall(SYS_pkey_mprotect, m, 4096L, PROT_READ | PROT_WRITE, -1)) WRONG("pkey_mprotect");
    *(volatile char *)m = 1;
    if (mlock2(m, 4096, 1 /* MLOCK_ONFAULT */) && errno != ENOMEM && errno != EPERM) WRONG("mlock2");
    long s = syscall(NR_memfd_secret, 0);
    if (s < 0 && errno != ENOSYS) WRONG("memfd_secret");
    int f = memfd_create("late", 0);
    if (ftruncate(f, 8192) || pwrite(f, "A", 1, 0) != 1 || pwrite(f, "B", 1, 4096) != 1) WRONG("memfd");
    volatile char *shared = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
    if (remap_file_pages((void *)shared, 4096, 0, 1, 0) || *shared != 'B') WRONG("remap_file_pages: %c", *shared);
}

static void files(void) {
    char name[] = "/tmp/lateXXXXXX", buf[64] = "";
    close(mkstemp(name));
    struct { uint64_t value; uint32_t size, flags; } x = { (uintptr_t)"hello", 5, 0 };
    if (syscall(NR_setxattrat, AT_FDCWD, name, 0, "user.late", &x, sizeof x)) { if (errno != EOPNOTSUPP && errno != ENOSYS) WRONG("setxattrat"); }
    else {
        x.value = (uintptr_t)buf; x.size = sizeof buf;
        if (syscall(NR_getxattrat, AT_FDCWD, name, 0, "user.late", &x, sizeof x) != 5 || strcmp(buf, "hello")) WRONG("getxattrat: %s", buf);
        if (syscall(NR_listxattrat, AT_FDCWD, name, 0, buf, sizeof buf) < 10) WRONG("listxattrat");
        if (syscall(NR_removexattrat, AT_FDCWD, name, 0, "user.late")) WRONG("removexattrat");
        x.value = 4;
        if (syscall(NR_setxattrat, AT_FDCWD, name, 0, "user.late", &x, sizeof x) != -1 || errno != EFAULT) WRONG("setxattrat of a bad address");
    }
    uint32_t attr[6];
    if (syscall(NR_file_getattr, AT_FDCWD, name, attr, sizeof attr, 0) && errno != EOPNOTSUPP && errno != ENOSYS && errno != ENOTTY) WRONG("file_getattr");
    unlink(name);

    int abi = syscall(NR_landlock_create_ruleset, NULL, 0L, 1);
    if (abi > 0) {
        pid_t child = fork();
        if (!child) {
            uint64_t handled = 4 | 8; /* read files, read directories */
            struct __attribute__((packed)) { uint64_t access; int32_t parent; } rule = { 4 | 8, open("/proc", O_PATH) };
            int rules = syscall(NR_landlock_create_ruleset, &handled, sizeof handled, 0);
            if (rules < 0) _exit(1);
            if (syscall(NR_landlock_add_rule, rules, 1, &rule, 0)) _exit(2);
            rule.access = 1ull << 60;
            if (syscall(NR_landlock_add_rule, rules, 1, &rule, 0) != -1 || errno != EINVAL) _exit(3);
            if (prctl(38 /* NO_NEW_PRIVS */, 1, 0, 0, 0) || syscall(NR_landlock_restrict_self, rules, 0)) _exit(4);
            if (open("/etc/passwd", O_RDONLY) != -1 || errno != EACCES) _exit(5);
            if (open("/proc/uptime", O_RDONLY) < 0) _exit(6);
            _exit(0);
        }
        int status; waitpid(child, &status, 0);
        if (status) WRONG("landlock: step %d", WEXITSTATUS(status));
    } else if (errno != ENOSYS && errno != EOPNOTSUPP) WRONG("landlock_create_ruleset");

    int fs = syscall(NR_fsopen, "tmpfs", 1);
    if (fs >= 0) {
        if (syscall(NR_fsconfig, fs, 1, "size", "1M", 0)) WRONG("fsconfig of a string");
        if (syscall(NR_fsconfig, fs, 6, NULL, NULL, 0)) WRONG("fsconfig: create");
        int mnt = syscall(NR_fsmount, fs, 1, 0);
        if (mnt < 0) WRONG("fsmount");
        uint64_t set[4] = { 1 /* MOUNT_ATTR_RDONLY */ };
        if (syscall(NR_mount_setattr, mnt, "", AT_EMPTY_PATH, set, sizeof set)) WRONG("mount_setattr");
        if (openat(mnt, "x", O_CREAT | O_WRONLY, 0600) != -1 || errno != EROFS) WRONG("the mount is not read-only");
        set[0] = 1ull << 50;
        if (syscall(NR_mount_setattr, mnt, "", AT_EMPTY_PATH, set, sizeof set) != -1 || errno != EINVAL) WRONG("mount_setattr of an unknown attribute");
    } else if (errno != EPERM && errno != ENODEV) WRONG("fsopen");
    struct { uint32_t size, spare; uint64_t id, parameter; } req = { sizeof req, 0, ~0ull, 0 };
    uint64_t ids[64], stat[128] = { 0 };
    long n = syscall(NR_listmount, &req, ids, 64L, 0);
    if (n > 0) {
        req.id = ids[0]; req.parameter = 2; /* STATMOUNT_MNT_BASIC */
        if (syscall(NR_statmount, &req, stat, sizeof stat, 0) || stat[1] != 2 || stat[5] != ids[0]) WRONG("statmount %llx", (unsigned long long)stat[5]);
    } else if (n < 0 && errno != ENOSYS && errno != EPERM && errno != ENOENT) WRONG("listmount");
}

static void messages(void) {
    int s[2], got;
    socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
    char c[2]; struct iovec io[2] = { { c, 1 }, { c + 1, 1 } };
    struct mmsghdr m[2] = { { .msg_hdr = { .msg_iov = io, .msg_iovlen = 1 } }, { .msg_hdr = { .msg_iov = io + 1, .msg_iovlen = 1 } } };
    if (write(s[0], "x", 1) != 1) WRONG("write");
    struct timespec t = { 0, 1 };
    alarm(5);
    if ((got = recvmmsg(s[1], m, 2, 0, &t)) != 1) WRONG("recvmmsg that ends by time: %d", got);
    t.tv_nsec = 2000000000;
    if (recvmmsg(s[1], m, 2, 0, &t) != -1 || errno != EINVAL) WRONG("recvmmsg with a bad time");
    alarm(0);

    struct mq_attr a = { .mq_maxmsg = 2, .mq_msgsize = 8 };
    char name[32]; snprintf(name, sizeof name, "/late-%d", getpid());
    mqd_t q = mq_open(name, O_CREAT | O_RDWR, 0600, &a);
    if (q == (mqd_t)-1) return;
    mq_unlink(name);
    struct sigaction act = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
    sigaction(SIGUSR1, &act, NULL);
    struct sigevent ev = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 77 };
    if (mq_notify(q, &ev)) WRONG("mq_notify");
    if (mq_notify(q, &ev) != -1 || errno != EBUSY) WRONG("a second mq_notify");
    mq_send(q, "m", 1, 0);
    for (int i = 0; i < 100 && !signalled; i++) usleep(5000);
    if (signalled != SIGUSR1 || value != 77) WRONG("signal %d with %d", signalled, value);
    char text[8]; mq_receive(q, text, sizeof text, NULL);
    ev.sigev_notify = SIGEV_THREAD; ev.sigev_notify_function = on_message; ev.sigev_notify_attributes = NULL; ev.sigev_value.sival_int = 78;
    if (mq_notify(q, &ev)) WRONG("mq_notify with a thread");
    mq_send(q, "m", 1, 0);
    for (int i = 0; i < 100 && !notified; i++) usleep(5000);
    if (notified != 78) WRONG("the thread got %d", notified);
}

static void fall_backs(void) {
    char params[256] = { 0 };
    int r = syscall(NR_io_uring_setup, 4, params);
    if (r < 0 && errno != EPERM && errno != ENOSYS && errno != ENOMEM) WRONG("io_uring_setup");
    if (syscall(NR_io_uring_enter, -1, 0, 0, 0, NULL, 0) != -1 || errno != EBADF) WRONG("io_uring_enter of no descriptor");
    if (syscall(SYS_quotactl, 0x80000700 /* Q_GETQUOTA */, "/nowhere", 0, params) != -1 || (errno != ENOENT && errno != ENOSYS && errno != EPERM)) WRONG("quotactl");
    int f = syscall(SYS_fanotify_init, 0, O_RDONLY);
    if (f < 0) { if (errno != EPERM && errno != ENOSYS) WRONG("fanotify_init"); return; }
#if __SIZEOF_LONG__ == 4
    uint64_t mask = 0x20;
    uint32_t w[2]; memcpy(w, &mask, 8);
    long m = syscall(SYS_fanotify_mark, f, 1, w[0], w[1], AT_FDCWD, "/etc/passwd");
#else
    long m = syscall(SYS_fanotify_mark, f, 1, 0x20L /* FAN_OPEN */, AT_FDCWD, "/etc/passwd");
#endif
    if (m) { WRONG("fanotify_mark"); return; }
    int o = open("/etc/passwd", O_RDONLY);
    struct { uint32_t length; uint8_t version, reserved; uint16_t header; uint64_t mask; int32_t fd, pid; } e = { 0 };
    struct pollfd p = { f, POLLIN, 0 };
    if (poll(&p, 1, 1000) != 1 || read(f, &e, sizeof e) != 24 || e.length != 24 || e.mask != 0x20 || e.pid != getpid() || e.fd < 0)
        WRONG("event of %u bytes, mask %llx, process %d", e.length, (unsigned long long)e.mask, e.pid);
    close(o);
}

int main(void) {
    vectors(); polls(); keys(); memory(); files(); messages(); fall_backs();
    if (!bad) puts("ok");
    return bad != 0;
}
