/* A fault has the address and the reason that Linux gives. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static sigjmp_buf back;
static volatile int number, code;
static void *volatile address;

static void on_fault(int signal, siginfo_t *info, void *context) {
    number = signal, code = info->si_code, address = info->si_addr;
    siglongjmp(back, 1);
}

/* Some processors tell the page only. */
static int is_near(const char *expected) {
    uintptr_t mask = ~(uintptr_t)0xfff;
    return ((uintptr_t)address & mask) == ((uintptr_t)expected & mask);
}

static int check(const char *what, volatile char *place, int write, int signal, int reason) {
    number = 0;
    if (!sigsetjmp(back, 1)) {
        if (write) *place = 1;
        else (void)*place;
    }
    int bad = number != signal || code != reason || !is_near((char *)place);
    if (bad) printf("%s: signal %d, code %d, address %p, not %p\n", what, number, code, address, (void *)place);
    return bad;
}

int main(void) {
    struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
    size_t size = 1 << 17;
    int bad = 0, file = memfd_create("empty", 0), anywhere = MAP_PRIVATE | MAP_ANONYMOUS;
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    char *readable = mmap(NULL, size, PROT_READ, anywhere, -1, 0);
    char *unmapped = mmap(NULL, size, PROT_READ, anywhere, -1, 0);
    char *empty = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    munmap(unmapped, size);
    bad |= check("write to what can be read", readable + 100, 1, SIGSEGV, SEGV_ACCERR);
    bad |= check("read of nothing", unmapped + 100, 0, SIGSEGV, SEGV_MAPERR);
    bad |= check("read behind the end of a file", empty + 65536, 0, SIGBUS, BUS_ADRERR);
    bad |= check("write behind the end of a file", empty + 70000, 1, SIGBUS, BUS_ADRERR);
    if (!bad) puts("ok");
    return bad;
}
