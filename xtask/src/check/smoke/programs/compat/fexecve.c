/*
 * fexecve() of files that are closed on exec (a file, a memfd, a script), and /proc/self/exe of programs
 * without a path: a memfd, and a file that was deleted before or after it began to run.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;
static char *const no_environment[] = { NULL };

static void wrong(const char *what)
{
    printf("bad: %s (errno %d)\n", what, errno);
    fflush(stdout);
    bad = 1;
}

#define CHECK(condition, what) \
    do { \
        if (!(condition)) { \
            wrong(what); \
        } \
    } while (0)

static int execveat_empty(int fd, char **argv)
{
    return syscall(SYS_execveat, fd, "", argv, no_environment, AT_EMPTY_PATH);
}

/* Open descriptors, apart from that of the directory: more of them would be a leak. */
static int descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static void copy_self(int to)
{
    char buffer[65536];
    int from = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    ssize_t n;

    while ((n = read(from, buffer, sizeof buffer)) > 0) {
        if (write(to, buffer, n) != n) {
            wrong("write");
            break;
        }
    }
    CHECK(n == 0, "copy of /proc/self/exe");
    close(from);
}

/* A program that was started by the tests below: ARGV[1] is how, ARGV[2] the number of descriptors, ARGV[3] the inode. */
static int started(char **argv)
{
    char name[4096] = "", buffer[4];
    struct stat st, own;
    ino_t inode = strtoull(argv[3], NULL, 10);
    int fd;

    CHECK(descriptors() == atoi(argv[2]), "descriptors that the program did not have");
    CHECK(readlink("/proc/self/exe", name, sizeof name - 1) > 0, "readlink(/proc/self/exe)");
    if (!strcmp(argv[1], "file")) {
        CHECK(stat(name, &st) == 0 && st.st_ino == inode, name);
    }
    if (!strcmp(argv[1], "unlink")) {
        char before[4200];
        snprintf(before, sizeof before, "%s (deleted)", name);
        unlink(name);
        memset(name, 0, sizeof name);
        CHECK(readlink("/proc/self/exe", name, sizeof name - 1) > 0 && !strcmp(name, before), name);
        return bad;
    }
    if (!strcmp(argv[1], "memfd")) {
        CHECK(!strcmp(name, "/memfd:program (deleted)"), name);
    }
    if (!strcmp(argv[1], "deleted")) {
        CHECK(strlen(name) > 10 && !strcmp(name + strlen(name) - 10, " (deleted)"), name);
    }
    CHECK(stat("/proc/self/exe", &own) == 0 && own.st_ino == inode, "stat(/proc/self/exe)");
    CHECK((fd = open("/proc/self/exe", O_RDONLY)) >= 0 && fstat(fd, &st) == 0 && st.st_ino == inode && read(fd, buffer, 4) == 4 &&
              !memcmp(buffer, "\177ELF", 4),
          "open(/proc/self/exe)");
    close(fd);
    if (!argv[4]) {
        fflush(stdout);
        char *again[] = { argv[0], argv[1], argv[2], argv[3], "again", NULL };
        if (!bad) {
            execve("/proc/self/exe", again, no_environment);
            wrong("exec of /proc/self/exe");
        }
    }
    return bad;
}

static void run(const char *how, int fd, const char *remove)
{
    char count[20], inode[30];
    struct stat st;
    int status = -1;

    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        fstat(fd, &st);
        snprintf(inode, sizeof inode, "%llu", (unsigned long long)st.st_ino);
        int closed = 0;
        for (int other = 0; other < 256; other++) {
            int flags = fcntl(other, F_GETFD);
            closed += flags >= 0 && (flags & FD_CLOEXEC);
        }
        snprintf(count, sizeof count, "%d", descriptors() - closed);
        if (remove) {
            unlink(remove);
        }
        execveat_empty(fd, (char *[]){ "program", (char *)how, count, inode, NULL });
        wrong(how);
        _exit(1);
    }
    if (waitpid(pid, &status, 0) != pid || status) {
        printf("bad: fexecve: %s: status %x\n", how, status);
        bad = 1;
    }
}

int main(int argc, char **argv)
{
    char path[] = "/tmp/fexecve-XXXXXX";
    int fd;

    if (argc > 3) {
        return started(argv);
    }
    alarm(20);
    run("file", open("/proc/self/exe", O_RDONLY | O_CLOEXEC), NULL);
    run("file", fd = open("/proc/self/exe", O_RDONLY), NULL);
    close(fd);
    run("file", open("/proc/self/exe", O_PATH | O_CLOEXEC), NULL);

    fd = memfd_create("program", MFD_CLOEXEC);
    copy_self(fd);
    run("memfd", fd, NULL);
    fcntl(fd, F_SETFD, 0);
    run("memfd", fd, NULL);
    close(fd);

    for (int i = 0; i < 2; i++) {
        strcpy(path, "/tmp/fexecve-XXXXXX");
        fd = mkstemp(path);
        copy_self(fd);
        fchmod(fd, 0700);
        close(fd);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (i) {
            run("deleted", fd, path);
        } else {
            run("unlink", fd, NULL);
        }
        close(fd);
    }

    /* The shell that a script names could not open it. */
    fd = memfd_create("script", MFD_CLOEXEC);
    if (write(fd, "#!/bin/sh\nexit 0\n", 17) != 17) {
        return 1;
    }
    CHECK(execveat_empty(fd, (char *[]){ "script", NULL }) == -1 && errno == ENOENT, "script");
    CHECK(execveat_empty(1000000, argv) == -1 && errno == EBADF, "no such descriptor");
    fd = open("/", O_RDONLY | O_CLOEXEC);
    CHECK(execveat_empty(fd, argv) == -1 && errno == EACCES, "directory");
    fd = memfd_create("text", MFD_CLOEXEC);
    if (write(fd, "text\n", 5) != 5) {
        return 1;
    }
    CHECK(execveat_empty(fd, argv) == -1 && errno == ENOEXEC, "text");
    CHECK(syscall(SYS_execveat, AT_FDCWD, "", argv, no_environment, 0) == -1 && errno == ENOENT, "empty path");
    if (!bad) {
        puts("ok");
    }
    return bad;
}
