/* /proc/cpuinfo has the architecture's form and, on x86, says what CPUID says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

static int bad;
static char text[1 << 20];

static int has(const char *key)
{
    char line[64];

    snprintf(line, sizeof(line), "\n%s\t", key);
    return strstr(text, line) != NULL;
}

static void need(const char *key)
{
    if (!has(key)) {
        printf("bad: no line for \"%s\"\n", key);
        bad = 1;
    }
}

int main(void)
{
    FILE *f = fopen("/proc/cpuinfo", "r");

    text[0] = '\n';
    if (!f || !fread(text + 1, 1, sizeof(text) - 2, f)) {
        puts("bad: cannot be read");
        return 1;
    }
#if defined(__x86_64__) || defined(__i386__)
    static const struct {
        const char *name;
        int ecx;
        unsigned bit;
    } flags[] = {
        { "sse2", 0, 26 }, { "cmov", 0, 15 }, { "fpu", 0, 0 },
        { "pni", 1, 0 }, { "ssse3", 1, 9 }, { "sse4_1", 1, 19 },
        { "sse4_2", 1, 20 }, { "popcnt", 1, 23 }, { "movbe", 1, 22 },
        { "fma", 1, 12 }, { "hypervisor", 1, 31 },
    };
    unsigned a = 0, b = 0, c = 0, d = 0, family, want;
    char vendor[13] = "", got[64] = "";
    const char *p = strstr(text, "\nvendor_id\t: ");
    const char *list = strstr(text, "\nflags\t\t: ");

    need("cpu family");
    need("model name");
    need("cpu cores");
    __get_cpuid(0, &a, &b, &c, &d);
    memcpy(vendor, &b, 4);
    memcpy(vendor + 4, &d, 4);
    memcpy(vendor + 8, &c, 4);
    if (!p || sscanf(p, "\nvendor_id\t: %63s", got) != 1 ||
        strcmp(got, vendor)) {
        printf("bad: vendor %s, not %s\n", got, vendor);
        bad = 1;
    }
    __get_cpuid(1, &a, &b, &c, &d);
    want = (a >> 8 & 15) + ((a >> 8 & 15) == 15 ? a >> 20 & 255 : 0);
    p = strstr(text, "\ncpu family\t: ");
    if (!p || sscanf(p, "\ncpu family : %u", &family) != 1 ||
        family != want) {
        printf("bad: family is not %u\n", want);
        bad = 1;
    }
    for (size_t i = 0; list && i < sizeof(flags) / sizeof(flags[0]); i++) {
        char name[32];
        const char *end = strchr(list + 1, '\n');
        const char *at;
        int cpuid = (flags[i].ecx ? c : d) >> flags[i].bit & 1;

        snprintf(name, sizeof(name), " %s", flags[i].name);
        for (at = strstr(list, name); at && at < end;
             at = strstr(at + 1, name)) {
            char after = at[strlen(name)];
            if (after == ' ' || after == '\n') {
                break;
            }
        }
        if ((at && at < end) != cpuid) {
            printf("bad:%s is %d in CPUID\n", name, cpuid);
            bad = 1;
        }
    }
    if (!list) {
        puts("bad: no flags");
        bad = 1;
    }
#elif defined(__powerpc__)
    need("cpu\t");
    need("revision");
    need("timebase");
#elif defined(__mips__)
    need("system type\t");
    need("cpu model\t");
    need("isa\t\t");
    need("ASEs implemented");
#elif defined(__loongarch__)
    need("CPU Family\t");
    need("Features\t");
    need("ISA\t\t");
#elif defined(__aarch64__) || defined(__arm__)
    if (!strstr(text, "\nFeatures\t: ")) {
        puts("bad: no features");
        bad = 1;
    }
#endif
#if !defined(__x86_64__) && !defined(__i386__)
    if (has("vendor_id") && has("cpu family")) {
        puts("bad: an x86 processor");
        bad = 1;
    }
#endif
    if (!bad) {
        puts("ok");
    }
    return bad;
}
