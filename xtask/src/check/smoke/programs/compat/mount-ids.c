/* statx() gives the ID of a mount, as in /proc/self/mountinfo, and claims nothing that it does not give. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As the kernel defines it, up to the ID of the mount: older headers of C libraries lack that. */
struct status {
    uint32_t mask, unused[35];
    uint64_t mount;
    uint64_t later[13];
};

static long id_in_mountinfo(const char *path)
{
    FILE *file = fopen("/proc/self/mountinfo", "r");
    char line[4096], place[4096];
    long id, found = -1;

    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%ld %*s %*s %*s %s", &id, place) == 2 && !strcmp(place, path)) {
            found = id;
        }
    }
    fclose(file);
    return found;
}

int main(void)
{
    const char *paths[] = { "/", "/proc" };
    int bad = 0;

    for (int i = 0; i < 2; i++) {
        struct status status;
        memset(&status, 0xff, sizeof status);
        if (syscall(SYS_statx, AT_FDCWD, paths[i], 0, 0x1000, &status)) {
            perror("statx");
            return 1;
        }
        long expected = id_in_mountinfo(paths[i]);
        if ((status.mask & 0x1000) && expected != -1 && status.mount != (uint64_t)expected) {
            printf("%s: mount %lld, expected %ld\n", paths[i], (long long)status.mount, expected);
            bad = 1;
        }
        if (status.mask & ~0x3ffffu) {
            printf("%s: mask %x\n", paths[i], status.mask);
            bad = 1;
        }
    }
    if (!bad) {
        puts("ok");
    }
    return bad;
}
