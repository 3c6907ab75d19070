/* Real-time signals keep their numbers outside of the emulator, wherever a program meets them, and /proc shows the program's own sets. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The C library has all up to SIGRTMAX: 127 on MIPS, 64 elsewhere. */
#define LAST 60

static int bad;
static volatile int got, value, code;

#define CHECK(what, is, want) do { \
    long long is_ = (is), want_ = (want); \
    if (is_ != want_) { printf("%s: %lld, not %lld\n", what, is_, want_); bad = 1; } \
} while (0)

static void handler(int sig, siginfo_t *info, void *context)
{
    (void)context;
    got = sig;
    code = info->si_code;
    value = info->si_value.sival_int;
}

static void handle(int sig)
{
    struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO };

    got = value = code = 0;
    if (sigaction(sig, &action, NULL)) {
        CHECK("sigaction", errno, 0);
    }
}

static unsigned long long bit(int sig)
{
    return 1ull << (sig - 1);
}

static unsigned long long status_set(const char *file, const char *name)
{
    char line[256];
    unsigned long long set = -1;
    FILE *f = fopen(file, "r");

    while (f && fgets(line, sizeof(line), f)) {
        if (!strncmp(line, name, 7)) {
            set = strtoull(line + 7, NULL, 16);
        }
    }
    if (f) {
        fclose(f);
    }
    return set;
}

/* A native program, if the machine has one where it should be, sends the signal from outside. */
static void kill_from_outside(void)
{
    for (int sig = SIGRTMIN; sig <= LAST; sig++) {
        char command[64];

        handle(sig);
        snprintf(command, sizeof(command), "kill -%d %d", sig, (int)getpid());
        if (system(command)) {
            return;
        }
        for (int i = 0; i < 100 && !got; i++) {
            usleep(1000);
        }
        CHECK("signal from outside", got, sig);
        signal(sig, SIG_DFL);
    }
}

static void *in_thread(void *arg)
{
    sigset_t set;
    char name[64];

    (void)arg;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 5);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    snprintf(name, sizeof(name), "/proc/self/task/%d/status", (int)syscall(SYS_gettid));
    CHECK("SigBlk of a thread", status_set(name, "SigBlk:"), bit(SIGRTMIN + 5));
    CHECK("SigBlk of /proc/thread-self", status_set("/proc/thread-self/status", "SigBlk:"), bit(SIGRTMIN + 5));
    /* It blocks all while it creates a thread. */
    usleep(20000);
    CHECK("SigBlk of the first thread", status_set("/proc/self/status", "SigBlk:"), 0);
    syscall(SYS_tgkill, getpid(), syscall(SYS_gettid), SIGRTMIN + 5);
    CHECK("SigPnd of a thread", status_set(name, "SigPnd:"), bit(SIGRTMIN + 5));
    return NULL;
}

static void *sleeper(void *arg)
{
    for (;;) {
        pause();
    }
    return arg;
}

int main(void)
{
    siginfo_t info;
    sigset_t set, old;
    char name[64];
    pthread_t thread;
    void *result;
    int status, fd, sig, pipes[2];
    pid_t pid;

    kill_from_outside();

    /* A parent sees what a program died of. */
    for (sig = SIGRTMIN; sig <= LAST; sig += 3) {
        pid = fork();
        if (!pid) {
            raise(sig);
            _exit(0);
        }
        memset(&info, 0, sizeof(info));
        waitid(P_PID, pid, &info, WEXITED);
        CHECK("si_status", info.si_status, sig);
        CHECK("si_code of a killed child", info.si_code, CLD_KILLED);
    }

    /* Timers, pipes, parents. */
    sig = SIGRTMIN + 7;
    handle(sig);
    struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = sig, .sigev_value.sival_int = 77 };
    struct itimerspec soon = { .it_value.tv_nsec = 1000000 };
    timer_t timer;
    CHECK("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
    timer_settime(timer, 0, &soon, NULL);
    for (int i = 0; i < 200 && !got; i++) {
        usleep(1000);
    }
    CHECK("signal of a timer", got, sig);
    CHECK("value of a timer", value, 77);
    CHECK("code of a timer", code, SI_TIMER);
    timer_delete(timer);

    sig = SIGRTMIN + 8;
    handle(sig);
    if (!pipe(pipes)) {
        CHECK("F_SETSIG", fcntl(pipes[0], F_SETSIG, sig), 0);
        CHECK("F_GETSIG", fcntl(pipes[0], F_GETSIG), sig);
        fcntl(pipes[0], F_SETOWN, getpid());
        fcntl(pipes[0], F_SETFL, O_ASYNC);
        if (write(pipes[1], "", 1) != 1) {
            bad = 1;
        }
        for (int i = 0; i < 200 && !got; i++) {
            usleep(1000);
        }
        CHECK("signal of a pipe", got, sig);
    }
    CHECK("PR_SET_PDEATHSIG", prctl(PR_SET_PDEATHSIG, SIGRTMIN + 9), 0);
    status = 0;
    prctl(PR_GET_PDEATHSIG, &status);
    CHECK("PR_GET_PDEATHSIG", status, SIGRTMIN + 9);
    prctl(PR_SET_PDEATHSIG, 0);

    /* Waiting for signals. */
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN + 3);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &old);
    sigqueue(getpid(), SIGRTMIN + 3, (union sigval) { .sival_int = 5 });
    CHECK("sigwaitinfo", sigwaitinfo(&set, &info), SIGRTMIN + 3);
    CHECK("si_signo", info.si_signo, SIGRTMIN + 3);
    fd = signalfd(-1, &set, 0);
    sigqueue(getpid(), SIGRTMIN + 3, (union sigval) { .sival_int = 6 });
    struct signalfd_siginfo event_info = { 0 };
    CHECK("read of signalfd", read(fd, &event_info, sizeof(event_info)), sizeof(event_info));
    CHECK("ssi_signo", event_info.ssi_signo, SIGRTMIN + 3);
    CHECK("ssi_int", event_info.ssi_int, 6);
    pid = fork();
    if (!pid) {
        raise(SIGRTMIN + 4);
        _exit(0);
    }
    CHECK("read of signalfd", read(fd, &event_info, sizeof(event_info)), sizeof(event_info));
    CHECK("ssi_signo of a child", event_info.ssi_signo, SIGCHLD);
    CHECK("ssi_status of a child", event_info.ssi_status, SIGRTMIN + 4);
    waitpid(pid, &status, 0);
    CHECK("WTERMSIG", WTERMSIG(status), SIGRTMIN + 4);

    /* What the kernel tells of us. */
    signal(SIGHUP, SIG_IGN);
    signal(SIGRTMIN + 6, SIG_IGN);
    signal(SIGRTMIN + 7, SIG_DFL);
    sigaddset(&set, SIGSEGV);
    sigaddset(&set, SIGABRT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    handle(SIGABRT);
    kill(getpid(), SIGRTMIN + 3);
    kill(getpid(), SIGABRT);
    snprintf(name, sizeof(name), "/proc/%d/status", (int)getpid());
    CHECK("SigBlk", status_set(name, "SigBlk:"), bit(SIGRTMIN + 3) | bit(SIGCHLD) | bit(SIGSEGV) | bit(SIGABRT));
    CHECK("SigIgn", status_set(name, "SigIgn:") & (bit(SIGHUP) | bit(SIGRTMIN + 6) | bit(SIGRTMIN + 7) | bit(SIGRTMIN + 8)),
          bit(SIGHUP) | bit(SIGRTMIN + 6));
    CHECK("SigCgt", status_set(name, "SigCgt:") & ~(bit(32) | bit(33)), bit(SIGRTMIN + 8) | bit(SIGABRT));
    CHECK("ShdPnd", status_set(name, "ShdPnd:"), bit(SIGRTMIN + 3) | bit(SIGABRT));
    sigpending(&set);
    CHECK("sigpending", sigismember(&set, SIGRTMIN + 3), 1);
    sigtimedwait(&set, NULL, &(struct timespec) { 0 });
    sigtimedwait(&set, NULL, &(struct timespec) { 0 });
    sigprocmask(SIG_SETMASK, &old, NULL);

    /* The signals of the C library itself: one ends a thread, the other tells all threads to change their user. */
    pthread_create(&thread, NULL, in_thread, NULL);
    pthread_join(thread, NULL);
    pthread_create(&thread, NULL, sleeper, NULL);
    CHECK("setgid", setgid(getgid()), 0);
    CHECK("pthread_cancel", pthread_cancel(thread), 0);
    pthread_join(thread, &result);
    CHECK("pthread_join", result == PTHREAD_CANCELED, 1);

    if (!bad) {
        puts("ok");
    }
    return bad;
}
