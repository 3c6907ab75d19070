/*
 * /proc/PID of another emulated process shows the guest's program (command line, environment, title,
 * executable), by all ways to read it, and the files of its own threads are the guest's.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
static char self_exe[4096];

#define CHECK(condition, ...) \
    do { \
        if (!(condition)) { \
            printf("bad: " __VA_ARGS__); \
            puts(""); \
            bad = 1; \
        } \
    } while (0)

static ssize_t slurp(const char *path, char *buffer, size_t size)
{
    int fd = open(path, O_RDONLY);
    ssize_t length = 0, n;

    if (fd < 0) {
        return -1;
    }
    while ((n = read(fd, buffer + length, size - 1 - length)) > 0) {
        length += n;
    }
    close(fd);
    buffer[length] = 0;
    return length;
}

static void check_exe(const char *directory)
{
    char path[300], target[4096] = "", first[5] = "";
    struct stat program, st;
    int dir;

    snprintf(path, sizeof path, "%s/exe", directory);
    CHECK(readlink(path, target, sizeof target - 1) > 0 && !strcmp(target, self_exe), "readlink(%s): %s", path, target);
    memset(target, 0, sizeof target);
    CHECK(readlink(path, target, 3) == 3 && !strncmp(target, self_exe, 3) && !target[3], "readlink(%s) to 3 bytes", path);
    CHECK(!stat(self_exe, &program) && !stat(path, &st) && st.st_ino == program.st_ino && st.st_size == program.st_size, "stat(%s)",
          path);
    CHECK(!lstat(path, &st) && S_ISLNK(st.st_mode), "lstat(%s)", path);
    int fd = open(path, O_RDONLY);
    CHECK(fd >= 0 && !fstat(fd, &st) && st.st_ino == program.st_ino && read(fd, first, 4) == 4 && !memcmp(first, "\177ELF", 4),
          "open(%s)", path);
    close(fd);
    dir = open(directory, O_RDONLY | O_DIRECTORY);
    memset(target, 0, sizeof target);
    CHECK(readlinkat(dir, "exe", target, sizeof target - 1) > 0 && !strcmp(target, self_exe), "readlinkat(%s): %s", path, target);
    CHECK(!fstatat(dir, "exe", &st, 0) && st.st_ino == program.st_ino, "fstatat(%s)", path);
    struct statx stx;
    CHECK(!statx(dir, "exe", 0, STATX_INO, &stx) && stx.stx_ino == program.st_ino, "statx(%s)", path);
    close(dir);
}

static void *thread(void *arguments)
{
    char path[100], one[65536], two[65536];

    snprintf(path, sizeof path, "/proc/self/task/%ld", (long)syscall(SYS_gettid));
    check_exe(path);
    check_exe("/proc/thread-self");
    snprintf(path, sizeof path, "/proc/self/task/%ld/cmdline", (long)syscall(SYS_gettid));
    CHECK(slurp(path, one, sizeof one) > 0 && !strcmp(one, ((char **)arguments)[0]), "%s: %s", path, one);
    snprintf(path, sizeof path, "/proc/%d/task/%ld/auxv", getpid(), (long)syscall(SYS_gettid));
    ssize_t n = slurp(path, one, sizeof one);
    CHECK(n > 0 && slurp("/proc/self/auxv", two, sizeof two) == n && !memcmp(one, two, n), "%s", path);
    snprintf(path, sizeof path, "/proc/thread-self/maps");
    n = slurp(path, one, sizeof one);
    CHECK(n > 0 && strstr(one, self_exe), "%s", path);
    return NULL;
}

int main(int argc, char **argv)
{
    char path[100], buffer[65536], expected[4096];
    size_t length = 0;
    int status, native_child[2];

    alarm(20);
    for (int i = 0; i < argc; i++) {
        length += strlen(strcpy(expected + length, argv[i])) + 1;
    }
    ssize_t size = readlink("/proc/self/exe", self_exe, sizeof self_exe - 1);
    CHECK(size > 0, "readlink(/proc/self/exe)");
    check_exe("/proc/self");

    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        snprintf(path, sizeof path, "/proc/%d/cmdline", getppid());
        size = slurp(path, buffer, sizeof buffer);
        CHECK(size == (ssize_t)length && !memcmp(buffer, expected, length), "%s: %zd bytes, %s", path, size, buffer);
        snprintf(path, sizeof path, "/proc/%d/environ", getppid());
        size = slurp(path, buffer, sizeof buffer);
        CHECK(size >= 0 && (!environ[0] || !strcmp(buffer, environ[0])), "%s: %s", path, buffer);
        snprintf(path, sizeof path, "/proc/%d", getppid());
        check_exe(path);
        snprintf(path, sizeof path, "/proc/%d/task/%d", getppid(), getppid());
        check_exe(path);
        fflush(stdout);
        _exit(bad);
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0, "what a child sees of its parent");

    /* A program of this machine is not taken for an emulated one. */
    if (access("/bin/sleep", X_OK) == 0 && pipe2(native_child, O_CLOEXEC) == 0) {
        child = fork();
        if (child == 0) {
            execl("/bin/sleep", "sleep", "10", (char *)0);
            _exit(1);
        }
        close(native_child[1]);
        if (read(native_child[0], buffer, 1) == 0) {
            snprintf(path, sizeof path, "/proc/%d/exe", child);
            size = readlink(path, buffer, sizeof buffer - 1);
            buffer[size < 0 ? 0 : size] = 0;
            CHECK(*buffer == '/' && strcmp(buffer, self_exe), "%s: %s", path, buffer);
            snprintf(path, sizeof path, "/proc/%d/cmdline", child);
            /* In a guest's root filesystem, it is emulated too, and needs some time to start. */
            for (int i = 0; i < 100 && (slurp(path, buffer, sizeof buffer), strcmp(buffer, "sleep")); i++) {
                usleep(20000);
            }
            CHECK(slurp(path, buffer, sizeof buffer) == 9 && !memcmp(buffer, "sleep\00010", 9), "%s: %s", path, buffer);
        }
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
    }
    errno = 0;
    CHECK(readlink("/proc/4194304/exe", buffer, 100) == -1 && errno == ENOENT, "no such process: %d", errno);

    pthread_t id;
    pthread_create(&id, NULL, thread, argv);
    pthread_join(id, NULL);

    /* A title over the arguments is seen as it is. */
    memset(argv[0], 'T', strlen(argv[0]));
    size = slurp("/proc/self/cmdline", buffer, sizeof buffer);
    CHECK(size == (ssize_t)length && !strcmp(buffer, argv[0]), "title in /proc/self/cmdline: %s", buffer);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        snprintf(path, sizeof path, "/proc/%d/cmdline", getppid());
        size = slurp(path, buffer, sizeof buffer);
        _exit(size != (ssize_t)length || strcmp(buffer, argv[0]));
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0, "title in /proc/PID/cmdline");
    if (!bad) {
        puts("ok");
    }
    return bad;
}
