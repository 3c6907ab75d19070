/* A robust mutex goes over to the next who wants it, however its owner ends. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
static pthread_mutex_t *mutex;

#define CHECK(what, is, want) do { \
    long long is_ = (is), want_ = (want); \
    if (is_ != want_) { printf("%s: %lld, not %lld\n", what, is_, want_); bad = 1; } \
} while (0)

static void init(pthread_mutex_t *m, int protocol)
{
    pthread_mutexattr_t attr;

    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attr, PTHREAD_MUTEX_ROBUST);
    pthread_mutexattr_setprotocol(&attr, protocol);
    CHECK("pthread_mutex_init", pthread_mutex_init(m, &attr), 0);
}

/* Two mutexes are held by a process that ends in some way. */
static void end_by(const char *how, int sig, int as_waiter)
{
    int ready[2];
    char c;

    init(&mutex[0], PTHREAD_PRIO_NONE);
    init(&mutex[1], PTHREAD_PRIO_NONE);
    if (pipe(ready)) {
        exit(2);
    }
    pid_t pid = fork();
    if (!pid) {
        pthread_mutex_lock(&mutex[0]);
        pthread_mutex_lock(&mutex[1]);
        if (write(ready[1], "", 1) != 1) {
            _exit(2);
        }
        if (as_waiter) {
            usleep(50000);
            close(2);
        }
        if (sig == 0) {
            _exit(0);
        } else if (sig < 0) {
            execl("/bin/true", "true", NULL);
            _exit(0);
        } else if (as_waiter) {
            raise(sig);
        }
        for (;;) {
            pause();
        }
    }
    if (read(ready[0], &c, 1) != 1) {
        bad = 1;
    }
    if (!as_waiter) {
        usleep(10000);
        if (sig > 0) {
            kill(pid, sig);
        }
        waitpid(pid, NULL, 0);
    }
    for (int i = 0; i < 2; i++) {
        struct timespec end;

        clock_gettime(CLOCK_REALTIME, &end);
        end.tv_sec += 2;
        int error = pthread_mutex_timedlock(&mutex[i], &end);
        CHECK(how, error, EOWNERDEAD);
        if (error == EOWNERDEAD) {
            CHECK("pthread_mutex_consistent", pthread_mutex_consistent(&mutex[i]), 0);
        }
        if (error == EOWNERDEAD || !error) {
            pthread_mutex_unlock(&mutex[i]);
            CHECK("second lock", pthread_mutex_lock(&mutex[i]), 0);
            pthread_mutex_unlock(&mutex[i]);
        }
    }
    if (as_waiter) {
        waitpid(pid, NULL, 0);
    }
    close(ready[0]);
    close(ready[1]);
}

static sem_t is_locked, may_end;

static void *lock_and_end(void *arg)
{
    pthread_mutex_lock(arg);
    sem_post(&is_locked);
    sem_wait(&may_end);
    /* Time for the other thread to wait. */
    usleep(20000);
    return NULL;
}

struct entry {
    struct robust_list list;
    uint32_t futex;
};

/* The calls themselves, with a list of our own. */
static void *own_list(void *arg)
{
    static struct robust_list_head head;
    struct entry *entries = arg;
    struct robust_list_head *seen = NULL;
    size_t size = 0;
    uint32_t tid = syscall(SYS_gettid);

    CHECK("set_robust_list of a wrong size", syscall(SYS_set_robust_list, &head, sizeof(head) + 1), -1);
    CHECK("errno", errno, EINVAL);
    CHECK("set_robust_list", syscall(SYS_set_robust_list, &head, sizeof(head)), 0);
    CHECK("get_robust_list", syscall(SYS_get_robust_list, 0, &seen, &size), 0);
    CHECK("the list that was set", seen == &head && size == sizeof(head), 1);
    seen = NULL;
    CHECK("get_robust_list of a thread", syscall(SYS_get_robust_list, tid, &seen, &size), 0);
    CHECK("the list of the thread", seen == &head, 1);
    CHECK("get_robust_list without a thread", syscall(SYS_get_robust_list, 0x3fffffff, &seen, &size), -1);
    CHECK("errno", errno, ESRCH);
    CHECK("get_robust_list to a wrong address", syscall(SYS_get_robust_list, 0, 8, &size), -1);
    CHECK("errno", errno, EFAULT);

    /* Another's futex, a waiter's, the same thread's again, and an endless list. */
    entries[0].futex = tid + 1;
    entries[1].futex = tid | FUTEX_WAITERS;
    entries[2].futex = tid;
    entries[3].futex = tid;
    for (int i = 0; i < 3; i++) {
        entries[i].list.next = &entries[i + 1 > 2 ? 0 : i + 1].list;
    }
    head.futex_offset = offsetof(struct entry, futex);
    head.list.next = &entries[0].list;
    head.list_op_pending = &entries[3].list;
    return NULL;
}

/* A list which leads nowhere must not hurt. */
static void *bad_list(void *arg)
{
    static struct robust_list_head head;

    head.futex_offset = 3;
    head.list.next = (void *)(uintptr_t)-64;
    head.list_op_pending = (void *)16;
    syscall(SYS_set_robust_list, arg ? &head : (void *)8, sizeof(head));
    return NULL;
}

int main(void)
{
    static struct entry entries[4];
    pthread_t thread;

    /* What it has found so far is shown even if it hangs. */
    setvbuf(stdout, NULL, _IONBF, 0);
    mutex = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    end_by("lock after exit", 0, 0);
    end_by("lock during exit", 0, 1);
    end_by("lock during abort", SIGABRT, 1);
    end_by("lock during SIGKILL", SIGKILL, 1);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    /* The kernel of a little-endian host cannot do this for an emulated big-endian program. */
    end_by("lock after SIGTERM", SIGTERM, 0);
    end_by("lock after SIGKILL", SIGKILL, 0);
#endif

    init(mutex, PTHREAD_PRIO_NONE);
    for (int i = 0; i < 2; i++) {
        pthread_create(&thread, NULL, lock_and_end, mutex);
        sem_wait(&is_locked);
        CHECK("trylock", pthread_mutex_trylock(mutex), EBUSY);
        sem_post(&may_end);
        if (i) {
            pthread_join(thread, NULL);
        }
        CHECK("lock after a thread's end", pthread_mutex_lock(mutex), EOWNERDEAD);
        pthread_mutex_consistent(mutex);
        pthread_mutex_unlock(mutex);
        if (!i) {
            pthread_join(thread, NULL);
        }
    }
    /* Nobody who got an inconsistent mutex said that it is consistent again. */
    sem_post(&may_end);
    pthread_create(&thread, NULL, lock_and_end, mutex);
    pthread_join(thread, NULL);
    CHECK("lock", pthread_mutex_lock(mutex), EOWNERDEAD);
    pthread_mutex_unlock(mutex);
    CHECK("lock of what cannot be recovered", pthread_mutex_lock(mutex), ENOTRECOVERABLE);

    pthread_create(&thread, NULL, own_list, entries);
    pthread_join(thread, NULL);
    CHECK("another's futex", entries[0].futex & FUTEX_OWNER_DIED, 0);
    CHECK("a futex with a waiter", entries[1].futex, FUTEX_WAITERS | FUTEX_OWNER_DIED);
    CHECK("a futex in an endless list", entries[2].futex, FUTEX_OWNER_DIED);
    CHECK("a pending futex", entries[3].futex, FUTEX_OWNER_DIED);
    for (int i = 0; i < 2; i++) {
        pthread_create(&thread, NULL, bad_list, i ? entries : NULL);
        pthread_join(thread, NULL);
    }
    if (!bad) {
        puts("ok");
    }
    return bad;
}
