/*
 * Which file a set-user-ID program reaches as its own executable.
 *
 * own-executable attack TRIES VICTIM OTHER
 *     As an ordinary user, in a directory of his: run VICTIM through a symbolic link that leads to OTHER as soon as
 *     it has been executed, TRIES times for each use and spelling of /proc/self/exe. Write a line for each that says
 *     how often which file was reached.
 * own-executable USE SPELLING VICTIM
 *     The victim: write "own", "other", or what else it found.
 *
 * Compiled with -DOTHER it is OTHER. Without arguments it writes which of the two it is.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef OTHER
#define WHOSE "other"
#else
#define WHOSE "own"
#endif

/* What a file of this program is told by. No file has what is looked for: the words begin with the wrong letter. */
static const volatile char mark[] = "<" WHOSE " file>";
static char own_mark[] = "-own file>", other_mark[] = "-other file>";

static const char *const uses[] = { "open", "readlink", "exec" };

/* A path; or a directory, a space, and a path from there. P is the process, N a descriptor of the executable. */
static const char *const spellings[] = {
    "/proc/self/exe", "/proc/P/exe", "/proc/thread-self/exe", "/proc/self/task/P/exe", "/proc/self/../self/exe",
    "/proc//self/./exe", "/proc/self/root/proc/self/exe", "/dev/fd/../exe", "/proc/self exe", "/proc self/exe",
    "/proc/self/fd ../exe", "link", "/proc/self/fd/N", "/dev/fd/N", "/proc/self/fd N",
};

#define COUNT(list) (sizeof (list) / sizeof *(list))

static const char *open_it(int dir, const char *path)
{
    static char text[1 << 24];
    size_t size = 0;
    ssize_t got;
    int fd = openat(dir, path, O_RDONLY);

    if (fd < 0)
        return strerror(errno);
    while (size < sizeof text && (got = read(fd, text + size, sizeof text - size)) > 0)
        size += got;
    *own_mark = *other_mark = '<';
    if (memmem(text, size, other_mark, strlen(other_mark)))
        return "other";
    return memmem(text, size, own_mark, strlen(own_mark)) ? "own" : "neither";
}

static const char *readlink_it(int dir, const char *path, const char *victim)
{
    static char target[4096];

    if (readlinkat(dir, path, target, sizeof target - 1) < 0)
        return strerror(errno);
    return strcmp(target, victim) ? target : "own";
}

static int be_victim(const char *use, const char *spelling, const char *victim)
{
    char path[256], *name = path, *space, *letter;
    char *const argv[] = { "again", NULL };
    int dir = AT_FDCWD;

    snprintf(path, sizeof path, "%s", spelling);
    if ((letter = strpbrk(path, "PN"))) {
        int number = *letter == 'P' ? getpid() : open("/proc/self/exe", O_RDONLY);
        snprintf(letter, sizeof path - (letter - path), "%d%s", number, spelling + (letter - path) + 1);
    }
    if ((space = strchr(path, ' '))) {
        *space = '\0';
        name = space + 1;
        if ((dir = open(path, O_PATH | O_DIRECTORY)) < 0)
            err(1, "%s", path);
    }
    if (!strcmp(use, "exec")) {
        syscall(SYS_execveat, dir, name, argv, environ, 0);
        puts(strerror(errno));
    } else {
        puts(*use == 'o' ? open_it(dir, name) : readlink_it(dir, name, victim));
    }
    return 0;
}

/* Runs the victim once, and returns what it writes. */
static const char *attack(const char *use, const char *spelling, char **argv)
{
    static char said[4096];
    size_t size = 0;
    ssize_t got;
    int ends[2];

    remove("program");
    remove("evil");
    if (symlink(argv[3], "program") || symlink(argv[4], "evil") || pipe(ends))
        err(1, "cannot prepare");
    /* This process goes on once the kernel has opened the program and the emulator. */
    pid_t pid = vfork();
    if (pid == 0) {
        dup2(ends[1], 1);
        dup2(ends[1], 2);
        execl("program", "program", use, spelling, argv[3], (char *)NULL);
        _exit(127);
    }
    if (rename("evil", "program"))
        err(1, "cannot replace");
    close(ends[1]);
    while (size < sizeof said - 1 && (got = read(ends[0], said + size, sizeof said - 1 - size)) > 0)
        size += got;
    said[size] = '\0';
    said[strcspn(said, "\n")] = '\0';
    close(ends[0]);
    waitpid(pid, NULL, 0);
    return said;
}

int main(int argc, char **argv)
{
    if (argc == 1) {
        puts(mark[2] ? WHOSE : "");
        return 0;
    }
    if (argc == 4)
        return be_victim(argv[1], argv[2], argv[3]);
    if (argc != 5)
        errx(2, "wrong usage");
    setvbuf(stdout, NULL, _IOLBF, 0);
    remove("link");
    if (symlink("/proc/self/exe", "link"))
        err(1, "link");
    for (size_t use = 0; use < COUNT(uses); use++) {
        for (size_t i = 0; i < COUNT(spellings); i++) {
            int own = 0, other = 0, tries = atoi(argv[2]);
            char neither[4096] = "";

            /* It is itself what is read. */
            if (!strcmp(uses[use], "readlink") && !strcmp(spellings[i], "link"))
                continue;
            for (int try = 0; try < tries; try++) {
                const char *said = attack(uses[use], spellings[i], argv);
                if (!strcmp(said, "own"))
                    own++;
                else if (!strcmp(said, "other") || !strcmp(said, argv[4]))
                    other++;
                else
                    snprintf(neither, sizeof neither, ", but %s", said);
            }
            printf("%s %s: own %d, other %d of %d%s\n", uses[use], spellings[i], own, other, tries, neither);
        }
    }
    return 0;
}
