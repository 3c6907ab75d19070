/*
 * Checks which file a setuid program reaches through /proc/self/exe.
 *
 * own-executable attack TRIES VICTIM OTHER
 *     The attacker, an unprivileged user in a directory of their own: runs VICTIM through a symbolic link and then
 *     points the link to OTHER, TRIES times for each use and spelling of the path. Prints a line for each with the
 *     number of times each file was reached.
 * own-executable USE SPELLING VICTIM
 *     The victim: prints "own", "other", or an error.
 *
 * Compiled with -DOTHER, the program is OTHER. Without arguments it prints which of the two it is.
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

/* Marks the file. The search patterns begin with another character, so that the files do not contain them. */
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

static const char *open_path(int dir, const char *path)
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

static const char *read_link(int dir, const char *path, const char *victim)
{
    static char target[4096];

    if (readlinkat(dir, path, target, sizeof target - 1) < 0)
        return strerror(errno);
    return strcmp(target, victim) ? target : "own";
}

static int run_victim(const char *use, const char *spelling, const char *victim)
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
        puts(*use == 'o' ? open_path(dir, name) : read_link(dir, name, victim));
    }
    return 0;
}

/* Runs the victim once and returns the first line of its output. */
static const char *attack(const char *use, const char *spelling, char **argv)
{
    static char output[4096];
    size_t size = 0;
    ssize_t got;
    int ends[2];

    remove("program");
    remove("evil");
    if (symlink(argv[3], "program") || symlink(argv[4], "evil") || pipe(ends))
        err(1, "cannot prepare");
    /* vfork() returns here when execl() has opened the program and the emulator. */
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
    while (size < sizeof output - 1 && (got = read(ends[0], output + size, sizeof output - 1 - size)) > 0)
        size += got;
    output[size] = '\0';
    output[strcspn(output, "\n")] = '\0';
    close(ends[0]);
    waitpid(pid, NULL, 0);
    return output;
}

int main(int argc, char **argv)
{
    if (argc == 1) {
        puts(mark[2] ? WHOSE : "");
        return 0;
    }
    if (argc == 4)
        return run_victim(argv[1], argv[2], argv[3]);
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

            /* readlink reads this link itself, not what it points to. */
            if (!strcmp(uses[use], "readlink") && !strcmp(spellings[i], "link"))
                continue;
            for (int try = 0; try < tries; try++) {
                const char *output = attack(uses[use], spellings[i], argv);
                if (!strcmp(output, "own"))
                    own++;
                else if (!strcmp(output, "other") || !strcmp(output, argv[4]))
                    other++;
                else
                    snprintf(neither, sizeof neither, ", but %s", output);
            }
            printf("%s %s: own %d, other %d of %d%s\n", uses[use], spellings[i], own, other, tries, neither);
        }
    }
    return 0;
}
