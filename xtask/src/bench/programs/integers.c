/* Primes, longest Collatz sequence, and a linear congruential generator. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { LIMIT = 1000000, STARTS = 500000, STEPS = 60000000 };

static unsigned char composite[LIMIT];

int main(void)
{
    unsigned primes = 0, longest = 0, state = 1;

    for (unsigned i = 2; i < LIMIT; i++) {
        if (composite[i])
            continue;
        primes++;
        for (uint64_t j = (uint64_t)i * i; j < LIMIT; j += i)
            composite[j] = 1;
    }
    for (unsigned start = 1; start < STARTS; start++) {
        unsigned steps = 0;
        for (uint64_t n = start; n != 1; steps++)
            n = n & 1 ? 3 * n + 1 : n / 2;
        if (steps > longest)
            longest = steps;
    }
    for (unsigned i = 0; i < STEPS; i++)
        state = state * 1664525 + 1013904223;
    printf("%u %u %u\n", primes, longest, state);
    return 0;
}
