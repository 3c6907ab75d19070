// vfork(): the parent goes on when the child executes a program or ends, and sees what the child has written to its stack.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static int failed;

static void check(int ok, const char *what)
{
    if (!ok) {
        printf("%s\n", what);
        failed = 1;
    }
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static int spawn(const char *path, posix_spawn_file_actions_t *actions, pid_t *pid)
{
    char *argv[] = { (char *)path, NULL };
    return posix_spawn(pid, path, actions, NULL, argv, environ);
}

static int status_of(pid_t pid)
{
    int status = -1;
    waitpid(pid, &status, 0);
    return status;
}

static void spawn_reports_errors(void)
{
    pid_t pid;
    posix_spawn_file_actions_t actions;

    check(spawn("/does/not/exist", NULL, &pid) == ENOENT, "posix_spawn of a missing program does not fail");
    check(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a failed posix_spawn leaves a child");
    check(spawn("/dev/null", NULL, &pid) == EACCES, "posix_spawn of a device does not fail");

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/does/not/exist", O_RDONLY, 0);
    check(spawn("/bin/true", &actions, &pid) == ENOENT, "an action of posix_spawn does not fail");
    posix_spawn_file_actions_destroy(&actions);

    check(spawn("/bin/true", NULL, &pid) == 0 && status_of(pid) == 0, "posix_spawn of a program fails");
}

static void *spawn_often(void *missing)
{
    for (int i = 0; i < 20; i++) {
        pid_t pid;
        int error = spawn(missing ? "/does/not/exist" : "/bin/true", NULL, &pid);
        if (missing ? error != ENOENT : error || status_of(pid))
            return "posix_spawn in a thread has another result";
    }
    return NULL;
}

static void threads_spawn(void)
{
    pthread_t threads[4];
    void *message;

    for (long i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, spawn_often, (void *)(i % 2));
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], &message);
        check(!message, message ? message : "");
    }
}

static void writes_are_seen(void)
{
    volatile int value = 1;
    volatile char text[2000];
    int closed = open("/dev/null", O_RDONLY);
    pid_t pid = vfork();

    if (pid == 0) {
        value = 2;
        for (size_t i = 0; i < sizeof(text); i++)
            text[i] = 'x';
        // This must not end the wait.
        for (int fd = 3; fd < 100; fd++)
            close(fd);
        execl("/does/not/exist", "x", NULL);
        value = errno;
        _exit(3);
    }
    check(value == ENOENT, "the parent does not see what the child has written");
    check(text[0] == 'x' && text[sizeof(text) - 1] == 'x', "the parent does not see an array that the child has filled");
    check(WEXITSTATUS(status_of(pid)) == 3, "the child has another exit status");
    check(fcntl(closed, F_GETFD) != -1, "a descriptor of the parent is closed");
    close(closed);
}

static void parent_waits(void)
{
    double start = now();
    pid_t pid = vfork();

    if (pid == 0) {
        usleep(200000);
        _exit(0);
    }
    check(now() - start > 0.15, "the parent does not wait for the end of the child");
    status_of(pid);

    start = now();
    pid = vfork();
    if (pid == 0) {
        usleep(200000);
        execl("/bin/sleep", "sleep", "10", NULL);
        _exit(1);
    }
    check(now() - start > 0.15, "the parent does not wait for the child to execute a program");
    check(now() - start < 8, "the parent waits for a program to end");
    kill(pid, SIGKILL);
    check(status_of(pid) == SIGKILL, "the program has ended by itself");

    start = now();
    pid = vfork();
    if (pid == 0) {
        kill(getpid(), SIGKILL);
        _exit(1);
    }
    check(status_of(pid) == SIGKILL, "the child is not killed");
    check(now() - start < 0.9, "the parent waits for a killed child");
}

static void children_may_vfork(void)
{
    volatile int outer = 0;
    pid_t pid = vfork();

    if (pid == 0) {
        volatile int inner = 0;
        pid_t child = vfork();
        if (child == 0) {
            inner = 7;
            _exit(0);
        }
        outer = inner;
        _exit(status_of(child));
    }
    check(outer == 7, "a child does not see what its own child has written");
    check(status_of(pid) == 0, "the grandchild is not found");
}

int main(void)
{
    spawn_reports_errors();
    threads_spawn();
#ifndef __hppa__ // Its C library has fork() for vfork().
    writes_are_seen();
    parent_waits();
    children_may_vfork();
#endif
    if (!failed)
        puts("ok");
    return failed;
}
