/* A program reads the limits of memory that it has set, they bind it and the program that it executes, and the rules for changing them hold. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;

#define CHECK(what, is, want) do { \
    long long is_ = (is), want_ = (want); \
    if (is_ != want_) { printf("%s: %lld, not %lld\n", what, is_, want_); bad = 1; } \
} while (0)

#define MB (1024 * 1024)

static const struct {
    int resource;
    const char *name, *title;
    rlim_t soft, hard;
} limits[] = {
    { RLIMIT_STACK, "stack", "Max stack size ", 4 * MB, 20 * MB },
    { RLIMIT_DATA, "data", "Max data size ", 700 * MB, 800 * MB },
    { RLIMIT_AS, "address space", "Max address space ", 1000 * MB, 1200 * MB },
    { RLIMIT_NOFILE, "files", "Max open files ", 100, 200 },
};

/* The limits are what they were set to, by whichever way one looks. */
static void check_limits(void)
{
    for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        struct rlimit limit;
        char line[256];
        FILE *f;
        unsigned long long soft = 0, hard = 0;

        getrlimit(limits[i].resource, &limit);
        CHECK(limits[i].name, limit.rlim_cur, limits[i].soft);
        CHECK(limits[i].name, limit.rlim_max, limits[i].hard);
        prlimit(getpid(), limits[i].resource, NULL, &limit);
        CHECK(limits[i].name, limit.rlim_cur, limits[i].soft);
        f = fopen("/proc/self/limits", "r");
        while (f && fgets(line, sizeof(line), f)) {
            if (!strncmp(line, limits[i].title, strlen(limits[i].title))) {
                sscanf(line + 26, "%llu %llu", &soft, &hard);
            }
        }
        if (f) {
            fclose(f);
        }
        CHECK(limits[i].title, soft, limits[i].soft);
        CHECK(limits[i].title, hard, limits[i].hard);
    }
}

static void set_limits(void)
{
    for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        struct rlimit limit = { limits[i].soft, limits[i].hard };

        CHECK("setrlimit", setrlimit(limits[i].resource, &limit), 0);
    }
}

/* What is over a limit is refused, what is below it is not. */
static void check_mappings(void)
{
    void *p = mmap(NULL, 750 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK("more data than allowed", p == MAP_FAILED ? errno : 0, ENOMEM);
    p = mmap(NULL, 1100u * MB, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK("more address space than allowed", p == MAP_FAILED ? errno : 0, ENOMEM);
    p = mmap(NULL, 300 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK("data within the limits", p == MAP_FAILED, 0);
    if (p != MAP_FAILED) {
        /* A compiler may leave out a malloc whose memory is not used, and take it for done. */
        void *volatile q = mmap(p, 300 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
        CHECK("data in the same place", q == MAP_FAILED, 0);
        q = mremap(p, 300 * MB, 750 * MB, MREMAP_MAYMOVE);
        CHECK("growth beyond the limits", q == MAP_FAILED ? errno : 0, ENOMEM);
        q = malloc(450 * MB);
        CHECK("malloc beyond the limits", q != NULL, 0);
        munmap(p, 300 * MB);
    }
    CHECK("sbrk beyond the limits", (long)sbrk(720 * MB), -1);
}

/* Uses so many kilobytes of stack. */
static __attribute__((noinline)) int deep(int kilobytes)
{
    volatile char room[1024];

    room[0] = kilobytes;
    room[1023] = 1;
    return kilobytes > 1 ? deep(kilobytes - 1) + room[1023] : room[1023];
}

/* Returns -1 if this machine cannot execute the program: it has no handler (binfmt_misc). */
static int run(const char *program, const char *what, int kilobytes)
{
    char number[16];
    int status;
    pid_t pid = fork();

    if (!pid) {
        snprintf(number, sizeof(number), "%d", kilobytes);
        execl(program, program, what, number, (char *)NULL);
        _exit(126);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 126 ? -1 : status;
}

int main(int argc, char **argv)
{
    struct rlimit limit;
    int status;
    pid_t pid;

    if (argc > 2 && !strcmp(argv[1], "deep")) {
        close(2);
        return deep(atoi(argv[2])) < 1;
    }
    if (argc > 2) {
        check_limits();
        check_mappings();
        return bad;
    }

    pid = fork();
    if (!pid) {
        set_limits();
        check_limits();
        check_mappings();
        status = run(argv[0], "check", 0);
        if (status < 0) {
            goto no_exec;
        }
        CHECK("the program executed", status, 0);
        CHECK("little stack", run(argv[0], "deep", 3000), 0);
        limit.rlim_cur = limit.rlim_max = 16 * MB;
        setrlimit(RLIMIT_STACK, &limit);
        CHECK("much stack", run(argv[0], "deep", 14000), 0);
        limit.rlim_cur = limit.rlim_max = 2 * MB;
        setrlimit(RLIMIT_STACK, &limit);
        status = run(argv[0], "deep", 5000);
        CHECK("more stack than allowed", WIFSIGNALED(status), 1);
no_exec:
        limit.rlim_cur = 500 * MB;
        limit.rlim_max = 400 * MB;
        CHECK("soft above hard", setrlimit(RLIMIT_AS, &limit), -1);
        CHECK("errno", errno, EINVAL);
        CHECK("prlimit of a wrong address", syscall(SYS_prlimit64, 0, RLIMIT_AS, 8, NULL), -1);
        CHECK("errno", errno, EFAULT);
        limit.rlim_cur = 100 * MB;
        limit.rlim_max = 1100u * MB;
        struct rlimit old;
        CHECK("prlimit", prlimit(0, RLIMIT_AS, &limit, &old), 0);
        CHECK("the old limit", old.rlim_cur, 1000 * MB);
        getrlimit(RLIMIT_AS, &old);
        CHECK("the new limit", old.rlim_cur, 100 * MB);
        if (!getuid() && setresuid(1000, 1000, 1000)) {
            _exit(bad);
        }
        limit.rlim_max = 1150u * MB;
        CHECK("hard limit raised", setrlimit(RLIMIT_AS, &limit), -1);
        CHECK("errno", errno, EPERM);
        limit.rlim_max = RLIM_INFINITY;
        CHECK("hard limit of data raised", setrlimit(RLIMIT_DATA, &limit), -1);
        CHECK("hard limit of stack raised", setrlimit(RLIMIT_STACK, &limit), -1);
        fflush(stdout);
        _exit(bad);
    }
    waitpid(pid, &status, 0);
    if (!status) {
        puts("ok");
    }
    return status != 0;
}
