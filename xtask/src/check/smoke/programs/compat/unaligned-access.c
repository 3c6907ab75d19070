/* Loads and stores at any address, as Linux completes them even if the processor does not. */
#include <stdio.h>
#include <string.h>

#ifdef __sparc__
/* Linux sends SIGBUS. */
int main(void) { return 77; }
#else

static unsigned char bytes[32] __attribute__((aligned(16)));
static int failures;

/* Volatile, so that the compiler neither splits nor omits accesses. */
#define CHECK(type, value) \
    for (int at = 0; at < 16; at++) { \
        type expected = (value), stored; \
        memset(bytes, 0, sizeof(bytes)); \
        *(volatile type *)(bytes + at) = expected; \
        type loaded = *(volatile type *)(bytes + at); \
        memcpy(&stored, bytes + at, sizeof(stored)); \
        if (loaded != expected || stored != expected) { \
            printf("%s at %d is another one\n", #type, at); \
            failures++; \
        } \
    }

int main(void)
{
    CHECK(short, 0x1234)
    CHECK(int, 0x12345678)
    CHECK(long, 0x12345678)
#ifndef __arm__
    /* Linux does not complete those of two registers, and of floats, on all of its processors. */
    CHECK(long long, 0x123456789abcdef0)
    CHECK(float, 1.5f)
    CHECK(double, 1.25)
#endif
    if (failures)
        return 1;
    puts("ok");
    return 0;
}
#endif
