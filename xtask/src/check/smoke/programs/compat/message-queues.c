/* That a message queue can be opened by the kernel's name for it and that a time limit may be read-only. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int bad;
#define WRONG(...) (printf(__VA_ARGS__), printf(" (%s)\n", strerror(errno)), bad++)
static const struct timespec limit = { 0x7ffffff0, 0 };

int main(void) {
    /* The name stands at the beginning of a page, before which nothing can be read. */
    char *map = mmap(NULL, 3 * 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *name = map + 65536, text[8];
    mprotect(name, 65536, PROT_READ | PROT_WRITE);
    snprintf(name, 32, "queue-%d", getpid());
    struct mq_attr a = { .mq_maxmsg = 2, .mq_msgsize = 8 };
    int q = syscall(SYS_mq_open, name, O_CREAT | O_RDWR, 0600, &a);
    if (q < 0) { if (errno == ENOSYS || errno == EMFILE) { puts("ok"); return 0; } WRONG("mq_open"); }
    if (mq_timedsend(q, "m", 1, 3, &limit)) WRONG("mq_timedsend");
    unsigned priority = 0;
    if (mq_timedreceive(q, text, sizeof text, &priority, &limit) != 1 || priority != 3) WRONG("mq_timedreceive");
    if (syscall(SYS_mq_open, "/slash", O_CREAT | O_RDWR, 0600, &a) != -1 || (errno != EACCES && errno != EINVAL)) WRONG("a name with a slash");
    if (syscall(SYS_mq_unlink, name)) WRONG("mq_unlink");
    if (syscall(SYS_mq_unlink, name) != -1 || errno != ENOENT) WRONG("mq_unlink again");
    if (!bad) puts("ok");
    return bad != 0;
}
