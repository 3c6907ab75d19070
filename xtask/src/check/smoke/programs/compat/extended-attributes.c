/* Extended attributes of files, by path, by link and by descriptor, with their errors. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

static int failures;

static void check(int good, const char *what)
{
    if (!good) {
        printf("%s: %s\n", what, strerror(errno));
        failures = 1;
    }
}

int main(void)
{
    char path[] = "compat-XXXXXX";
    char value[16], names[4096];
    int fd = mkstemp(path);

    check(fd >= 0, "mkstemp");
    check(setxattr(path, "user.one", "value", 5, 0) == 0, "setxattr");
    check(getxattr(path, "user.one", value, sizeof(value)) == 5 &&
          memcmp(value, "value", 5) == 0, "getxattr");
    check(getxattr(path, "user.one", NULL, 0) == 5, "getxattr of the size");
    check(getxattr(path, "user.one", value, 4) == -1 && errno == ERANGE,
          "getxattr into a small buffer");
    check(lgetxattr(path, "user.one", value, sizeof(value)) == 5, "lgetxattr");
    check(fsetxattr(fd, "user.two", "", 0, XATTR_CREATE) == 0, "fsetxattr");
    check(fsetxattr(fd, "user.two", "", 0, XATTR_CREATE) == -1 &&
          errno == EEXIST, "fsetxattr of an existing attribute");
    check(fgetxattr(fd, "user.two", value, sizeof(value)) == 0, "fgetxattr");
    check(flistxattr(fd, names, sizeof(names)) >= 18, "flistxattr");
    check(memmem(names, sizeof(names), "user.one", 9) != NULL &&
          memmem(names, sizeof(names), "user.two", 9) != NULL, "names");
    check(removexattr(path, "user.one") == 0, "removexattr");
    check(getxattr(path, "user.one", value, sizeof(value)) == -1 &&
          errno == ENODATA, "getxattr of a removed attribute");
    unlink(path);
    if (!failures) {
        puts("ok");
    }
    return failures;
}
