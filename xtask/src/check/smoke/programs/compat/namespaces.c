/*
 * clone() and clone3() with namespaces and other flags of processes, clone3()'s errors, threads and
 * posix_spawn() through it, and unshare() and setns() of namespaces that only a process of one thread may enter.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef __NR_clone3
#define __NR_clone3 435
#endif

static int bad;

#define CHECK(condition, ...) \
    do { \
        if (!(condition)) { \
            printf("bad: " __VA_ARGS__); \
            printf(" (errno %d)\n", errno); \
            bad = 1; \
        } \
        errno = 0; \
    } while (0)

struct args {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup, later;
};

static long clone3(struct args *args, size_t size)
{
    fflush(stdout);
    return syscall(__NR_clone3, args, size);
}

static long fork_by_clone(unsigned long flags)
{
    fflush(stdout);
#ifdef __s390x__
    return syscall(SYS_clone, 0, flags, 0, 0, 0);
#else
    return syscall(SYS_clone, flags, 0, 0, 0, 0);
#endif
}

static int status_of(pid_t pid)
{
    int status = -1;

    return waitpid(pid, &status, __WALL) == pid ? status : -1;
}

static void *no_work(void *argument)
{
    return argument;
}

static void nothing(int signal)
{
    (void)signal;
}

/* The child of a namespace: that its C library works, too. */
static int child_works(void)
{
    pthread_t thread;
    pid_t pid = fork();
    void *memory = malloc(100000);

    if (pid == 0) {
        _exit(7);
    }
    free(memory);
    if (pid < 0 || status_of(pid) != 7 << 8) {
        return 1;
    }
    if (pthread_create(&thread, NULL, no_work, NULL) || pthread_join(thread, NULL)) {
        return 2;
    }
    if (raise(0)) {
        return 3;
    }
    return 0;
}

static void clone_flags(void)
{
    static const struct { unsigned long flags; const char *name; } tries[] = {
        { CLONE_NEWUSER | SIGCHLD, "NEWUSER" },
        { CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP | SIGCHLD,
          "all namespaces" },
        { CLONE_VFORK | CLONE_NEWUSER | CLONE_NEWPID | SIGCHLD, "VFORK|NEWUSER|NEWPID" },
        { CLONE_FS | CLONE_FILES | SIGCHLD, "FS|FILES" },
        { SIGUSR1, "SIGUSR1" },
        { 0, "no signal" },
    };

    for (unsigned i = 0; i < sizeof tries / sizeof *tries; i++) {
        pid_t self = getpid();
        pid_t pid = fork_by_clone(tries[i].flags);

        if (pid == 0) {
            if (tries[i].flags & CLONE_NEWPID && getpid() != 1) {
                _exit(20);
            }
            if (!(tries[i].flags & CLONE_NEWPID) && (getpid() == self || getppid() != self)) {
                _exit(21);
            }
            _exit(child_works());
        }
        CHECK(pid > 0, "clone(%s)", tries[i].name);
        int status = pid > 0 ? status_of(pid) : 0;
        CHECK(status == 0, "clone(%s): status %x", tries[i].name, status);
    }

    CHECK(fork_by_clone(CLONE_NEWUSER | CLONE_FS | SIGCHLD) == -1 && errno == EINVAL, "clone(NEWUSER|FS)");
    CHECK(fork_by_clone(CLONE_NEWNS | CLONE_FS | SIGCHLD) == -1 && errno == EINVAL, "clone(NEWNS|FS)");
    CHECK(fork_by_clone(CLONE_THREAD | SIGCHLD) == -1 && errno == EINVAL, "clone(THREAD)");

    /* A sibling: its parent is ours. */
    pid_t self = getpid(), pid = fork();
    if (pid == 0) {
        pid_t sibling = fork_by_clone(CLONE_PARENT | SIGCHLD);
        if (sibling == 0) {
            _exit(getppid() == self ? 5 : 6);
        }
        _exit(sibling > 0 ? 4 : 1);
    }
    int statuses = 0;
    for (int i = 0; i < 2; i++) {
        int status = 0;
        if (wait(&status) > 0) {
            statuses += WEXITSTATUS(status);
        }
    }
    CHECK(statuses == 9, "clone(PARENT): %d", statuses);
}

static void *unshares(void *unused)
{
    (void)unused;
    return (void *)(intptr_t)(unshare(CLONE_NEWUSER) == -1 && errno == EINVAL);
}

static void clone3_calls(void)
{
    struct args args = { .exit_signal = SIGCHLD };
    int pidfd = -1, parent_tid = 0, status;
    pid_t pid;
    char *stack = malloc(65536);

    pid = clone3(&args, 64);
    if (pid == 0) {
        _exit(3);
    }
    CHECK(pid > 0 && status_of(pid) == 3 << 8, "clone3() as fork()");

    args.flags = CLONE_PIDFD | CLONE_PARENT_SETTID | 0x100000000ULL /* CLONE_CLEAR_SIGHAND */ | CLONE_NEWUSER | CLONE_NEWPID;
    args.pidfd = (uintptr_t)&pidfd;
    args.parent_tid = (uintptr_t)&parent_tid;
    signal(SIGUSR2, SIG_IGN);
    pid = clone3(&args, 88);
    if (pid == 0) {
        _exit(getpid() != 1 ? 1 : signal(SIGUSR1, SIG_DFL) != SIG_DFL ? 2 : signal(SIGUSR2, SIG_DFL) != SIG_IGN ? 3 : child_works());
    }
    status = pid > 0 ? status_of(pid) : -1;
    CHECK(status == 0, "clone3(PIDFD|CLEAR_SIGHAND|NEWUSER|NEWPID): status %x", status);
    CHECK(pidfd > 0 && fcntl(pidfd, F_GETFD) == FD_CLOEXEC && parent_tid == pid, "results: %d %d", pidfd, parent_tid);

    args = (struct args){ .exit_signal = SIGCHLD };
    CHECK(clone3(&args, 63) == -1 && errno == EINVAL, "too small");
    CHECK(clone3(&args, 1 << 20) == -1 && errno == E2BIG, "too big");
    args.later = 1;
    CHECK(clone3(&args, sizeof args) == -1 && errno == E2BIG, "a later member");
    CHECK(clone3((struct args *)8, 88) == -1 && errno == EFAULT, "bad address");

    static const struct { struct args args; const char *what; } wrong[] = {
        { { .flags = SIGCHLD }, "signal among the flags" },
        { { .flags = CLONE_DETACHED }, "DETACHED" },
        { { .flags = 1ULL << 40 }, "unknown flag" },
        { { .flags = CLONE_PARENT, .exit_signal = SIGCHLD }, "PARENT with a signal" },
        { { .exit_signal = 300 }, "bad signal" },
        { { .exit_signal = SIGCHLD, .stack_size = 4096 }, "size without a stack" },
        { { .exit_signal = SIGCHLD, .stack = 4096 }, "stack without a size" },
        { { .exit_signal = SIGCHLD, .set_tid_size = 1 }, "set_tid_size without set_tid" },
        { { .exit_signal = SIGCHLD, .set_tid = 4096, .set_tid_size = 1000 }, "set_tid_size" },
        { { .flags = 0x200000000ULL, .exit_signal = SIGCHLD, .cgroup = 1ULL << 32 }, "cgroup" },
    };
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        args = wrong[i].args;
        CHECK(clone3(&args, 88) == -1 && errno == EINVAL, "clone3(): %s", wrong[i].what);
    }
    args = (struct args){ .flags = 0x200000000ULL, .exit_signal = SIGCHLD, .cgroup = 1000 };
    CHECK(clone3(&args, 88) == -1 && errno == EBADF, "no such cgroup");

    /* A process of no rights may not choose its number (in a namespace of its own it may). */
    pid_t wanted = 77;
    args = (struct args){ .flags = CLONE_NEWUSER | CLONE_NEWPID, .exit_signal = SIGCHLD };
    args.set_tid = (uintptr_t)&(pid_t){ 1 };
    args.set_tid_size = 1;
    pid = clone3(&args, 88);
    if (pid == 0) {
        args = (struct args){ .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&wanted, .set_tid_size = 1 };
        pid = clone3(&args, 88);
        if (pid == 0) {
            _exit(getpid() == wanted ? 9 : 10);
        }
        _exit(pid == wanted && status_of(pid) == 9 << 8 ? 0 : 1);
    }
    status = pid > 0 ? status_of(pid) : -1;
    CHECK(status == 0, "clone3() with set_tid: status %x", status);
    free(stack);
}

static void single_thread(void)
{
    pthread_t thread;
    void *refused;
    pid_t pid, target;
    int pipes[2], status;
    char path[64];

    /* While there are two threads the kernel refuses it. */
    CHECK(pthread_create(&thread, NULL, unshares, NULL) == 0 && pthread_join(thread, &refused) == 0 && refused,
          "unshare(NEWUSER) in a thread");

    /* After the thread has ended it does not. */
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        pthread_create(&thread, NULL, no_work, NULL);
        pthread_join(thread, NULL);
        usleep(1000);
        _exit(unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWIPC) ? 1 : unshare(CLONE_THREAD | CLONE_VM | CLONE_SIGHAND) ? 2 : 0);
    }
    status = status_of(pid);
    CHECK(status == 0, "unshare(NEWUSER|NEWPID|NEWIPC) after a thread: status %x", status);

    /* Memory that is mapped and unmapped makes work for the emulator's thread. */
    pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWPID | CLONE_NEWUSER)) {
            _exit(1);
        }
        for (int i = 0; i < 500; i++) {
            munmap(mmap(NULL, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 65536);
        }
        if (pthread_create(&thread, NULL, unshares, NULL) != EINVAL) {
            _exit(2);
        }
        for (int i = 0; i < 3; i++) {
            pid = fork();
            if (pid == 0) {
                _exit(i ? 0 : getpid() != 1 ? 8 : 0);
            }
            if (i == 0 && (pid < 0 || status_of(pid))) {
                _exit(3);
            }
            if (i && pid >= 0) { /* the namespace has lost its first process */
                _exit(4);
            }
        }
        _exit(0);
    }
    status = status_of(pid);
    CHECK(status == 0, "unshare(NEWPID|NEWUSER), fork(): status %x", status);

    /* The namespaces of another process. */
    if (pipe(pipes)) {
        return;
    }
    target = fork();
    if (target == 0) {
        char c = unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWUTS) ? 'n' : 'y';
        if (write(pipes[1], &c, 1) == 1) {
            pause();
        }
        _exit(0);
    }
    char c = 0;
    CHECK(read(pipes[0], &c, 1) == 1 && c == 'y', "unshare(NEWUSER|NEWNS|NEWUTS)");
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        static const char *const names[] = { "user", "mnt", "uts" };
        for (int i = 0; i < 3; i++) {
            char before[64] = "", after[64] = "";
            snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
            if (readlink(path, before, 63) < 0) {
                _exit(9);
            }
            snprintf(path, sizeof path, "/proc/%d/ns/%s", target, names[i]);
            int fd = open(path, O_RDONLY);
            if (fd < 0 || setns(fd, 0)) {
                _exit(10 + i);
            }
            snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
            if (readlink(path, after, 63) < 0 || !strcmp(before, after)) {
                _exit(20 + i);
            }
        }
        _exit(child_works());
    }
    status = status_of(pid);
    CHECK(status == 0, "setns(): status %x", status);
    kill(target, SIGKILL);
    status_of(target);
    CHECK(setns(pipes[0], 0) == -1 && errno == EINVAL, "setns() of a pipe");
    CHECK(unshare(0x10) == -1 && errno == EINVAL, "unshare(unknown)");
}

int main(void)
{
    pid_t pid;
    char *const spawned[] = { "sh", "-c", "exit 6", NULL };

    alarm(20);
    signal(SIGUSR1, nothing);
    clone_flags();
    clone3_calls();
    single_thread();
    CHECK(posix_spawn(&pid, "/bin/sh", NULL, NULL, spawned, NULL) == 0 && status_of(pid) == 6 << 8, "posix_spawn()");
    if (!bad) {
        puts("ok");
    }
    return bad;
}
