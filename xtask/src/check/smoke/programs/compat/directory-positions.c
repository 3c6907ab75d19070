/* Directory positions fit the guest's long and lead back to the same entry, also in a child and in large directories. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int bad;

static void fail(const char *what, long got, long want)
{
    printf("bad: %s: %ld, not %ld (%s)\n", what, got, want, strerror(errno));
    bad = 1;
}

static void check_dir(const char *dir, int want)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    long *pos = calloc(want + 1, sizeof(long));
    char (*name)[32] = calloc(want + 1, sizeof(*name));
    int n = 0;

    errno = 0;
    pos[0] = telldir(d);
    while ((e = readdir(d))) {
        if (n < want) {
            snprintf(name[n++], sizeof(*name), "%.31s", e->d_name);
            pos[n] = telldir(d);
        } else {
            n++;
        }
    }
    if (n != want || errno) {
        fail("entries", n, want);
        return;
    }
    for (int i = 0; i < want; i += 1 + want / 40) {
        seekdir(d, pos[i]);
        e = readdir(d);
        if (!e || strcmp(e->d_name, name[i])) {
            fail(e ? e->d_name : "no entry", i, i);
            break;
        }
    }
    seekdir(d, pos[want]);
    if (readdir(d)) {
        fail("entry after the end", 1, 0);
    }
    rewinddir(d);
    for (n = 0; readdir(d); n++) {
    }
    if (n != want) {
        fail("entries after rewinddir", n, want);
    }

    /* A description shared with a child: it lists, the parent goes on. */
    int p[2], fd = open(dir, O_RDONLY | O_DIRECTORY), status;
    int64_t where = -1, now;
    char buf[512] __attribute__((aligned(8)));
    if (pipe(p)) {
        exit(1);
    }
    pid_t pid = fork();
    if (!pid) {
        long got = syscall(SYS_getdents64, fd, buf, sizeof(buf));
        int64_t off = -1;
        for (long o = 0; o < got; o += *(uint16_t *)(buf + o + 16)) {
            memcpy(&off, buf + o + 8, 8);
        }
        _exit(write(p[1], &off, 8) != 8);
    }
    if (read(p[0], &where, 8) != 8) {
        fail("position from the child", 0, 1);
    }
    waitpid(pid, &status, 0);
    if (sizeof(long) == 4 && where != (int32_t)where) {
        fail("d_off has more than 31 bits, upper half", where >> 32, 0);
    }
    now = lseek64(fd, 0, SEEK_CUR);
    if (now != where) {
        fail("position after the child's getdents", now, where);
    }
    memset(buf, 0, sizeof(buf));
    syscall(SYS_getdents64, fd, buf, sizeof(buf));
    char next[32];
    snprintf(next, sizeof(next), "%.31s", buf + 19);
    now = lseek64(fd, where, SEEK_SET);
    if (now != where) {
        fail("lseek to a position", now, where);
    }
    memset(buf, 0, sizeof(buf));
    syscall(SYS_getdents64, fd, buf, sizeof(buf));
    if (strcmp(next, buf + 19)) {
        fail("entry after lseek is another", 1, 0);
    }
    errno = 0;
    if (lseek(fd, -1, SEEK_SET) != -1 || errno != EINVAL) {
        fail("lseek to -1", errno, EINVAL);
    }
    if (lseek64(fd, 0, SEEK_CUR) == 0) {
        fail("position lost by an error", 0, 1);
    }
    close(fd);
    closedir(d);
    free(pos);
    free(name);
}

static void test(const char *parent, int count)
{
    char dir[256];
    int fd;

    snprintf(dir, sizeof(dir), "%s/positionsXXXXXX", parent);
    if (!mkdtemp(dir)) {
        return;
    }
    fd = open(dir, O_RDONLY | O_DIRECTORY);
    for (int i = 0; i < count; i++) {
        char f[32];
        snprintf(f, sizeof(f), "entry-%d", i);
        close(openat(fd, f, O_CREAT | O_WRONLY, 0600));
    }
    check_dir(dir, count + 2);
    for (int i = 0; i < count; i++) {
        char f[32];
        snprintf(f, sizeof(f), "entry-%d", i);
        unlinkat(fd, f, 0);
    }
    close(fd);
    rmdir(dir);
}

int main(int argc, char **argv)
{
    if (argc > 2) {
        test(argv[1], atoi(argv[2]));
    } else {
        test("/tmp", 3);
        test("/tmp", 40);
        test("/tmp", 3000);
        test("/var/tmp", 200);
        test("/dev/shm", 300);
    }
    if (!bad) {
        puts("ok");
    }
    return bad;
}
