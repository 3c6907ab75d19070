/*
 * A message whose ancillary data does not fit in the buffer says so, and leaves no descriptor open. A message may have
 * ancillary data only.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static int bad;

#define CHECK(condition, ...) \
    do { \
        if (!(condition)) { \
            printf(__VA_ARGS__); \
            puts(""); \
            bad = 1; \
        } \
    } while (0)

union control {
    char bytes[200];
    struct cmsghdr header;
};

static int open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = 0;

    while (readdir(dir)) {
        count++;
    }
    closedir(dir);
    return count;
}

static struct msghdr message(union control *control, size_t length)
{
    static char text[8];
    static struct iovec part = { text, 1 };

    return (struct msghdr){ .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = length };
}

/* Sends two descriptors, and returns how many arrive in a buffer of `room` bytes. */
static int descriptors(size_t room, int *truncated)
{
    union control out = { 0 }, in = { 0 };
    int sockets[2], received = 0, before;

    socketpair(AF_UNIX, SOCK_STREAM, 0, sockets);
    struct msghdr sent = message(&out, CMSG_SPACE(2 * sizeof(int)));
    struct cmsghdr *header = CMSG_FIRSTHDR(&sent);
    *header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(2 * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
    memcpy(CMSG_DATA(header), (int[]){ 0, 1 }, 2 * sizeof(int));
    CHECK(sendmsg(sockets[0], &sent, 0) == 1, "sendmsg");
    before = open_files();
    struct msghdr got = message(&in, room);
    CHECK(recvmsg(sockets[1], &got, 0) == 1, "recvmsg");
    *truncated = (got.msg_flags & MSG_CTRUNC) != 0;
    header = CMSG_FIRSTHDR(&got);
    if (header) {
        received = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    }
    CHECK(open_files() == before + received, "%zu bytes: %d files, then %d", room, before, open_files());
    for (int i = 0; i < received; i++) {
        int fd;
        memcpy(&fd, CMSG_DATA(header) + i * sizeof fd, sizeof fd);
        close(fd);
    }
    close(sockets[0]);
    close(sockets[1]);
    return received;
}

/* A descriptor arrives without any data. */
static void without_data(void)
{
    union control out = { 0 }, in = { 0 };
    int sockets[2], fd = -1;

    socketpair(AF_UNIX, SOCK_DGRAM, 0, sockets);
    struct msghdr sent = { .msg_control = &out, .msg_controllen = CMSG_LEN(sizeof fd) };
    struct cmsghdr *header = CMSG_FIRSTHDR(&sent);
    *header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof fd), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
    memcpy(CMSG_DATA(header), (int[]){ sockets[0] }, sizeof fd);
    CHECK(sendmsg(sockets[0], &sent, 0) == 0, "sendmsg without data");
    struct msghdr got = { .msg_control = &in, .msg_controllen = sizeof in };
    CHECK(recvmsg(sockets[1], &got, 0) == 0, "recvmsg without data");
    header = CMSG_FIRSTHDR(&got);
    CHECK(header && header->cmsg_type == SCM_RIGHTS, "no descriptor without data");
    if (header) {
        memcpy(&fd, CMSG_DATA(header), sizeof fd);
        CHECK(fd > sockets[1] && write(fd, "x", 1) == 1, "descriptor %d", fd);
    }
    got = (struct msghdr){ 0 };
    CHECK(recvmsg(sockets[1], &got, MSG_DONTWAIT) == 0 && (got.msg_flags & MSG_TRUNC), "the data was not taken");
    CHECK(recvmsg(sockets[1], &got, MSG_DONTWAIT) == -1 && errno == EAGAIN, "no message is left");
    close(fd);
    close(sockets[0]);
    close(sockets[1]);
}

/* Receives a datagram with its time to live and another value, and returns the length of all ancillary data. */
static size_t numbers(size_t room, int *truncated)
{
    union control in = { 0 };
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int s = socket(AF_INET, SOCK_DGRAM, 0), one = 1;
    size_t data = 0;

    bind(s, (void *)&address, sizeof address);
    getsockname(s, (void *)&address, &length);
    setsockopt(s, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
    setsockopt(s, IPPROTO_IP, IP_RECVTTL, &one, sizeof one);
    CHECK(sendto(s, "x", 1, 0, (void *)&address, sizeof address) == 1, "sendto");
    struct msghdr got = message(&in, room);
    CHECK(recvmsg(s, &got, 0) == 1, "recvmsg");
    *truncated = (got.msg_flags & MSG_CTRUNC) != 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&got); header; header = CMSG_NXTHDR(&got, header)) {
        data += header->cmsg_len - CMSG_LEN(0);
    }
    close(s);
    return data;
}

int main(void)
{
    const size_t info = sizeof(struct in_pktinfo), first = CMSG_SPACE(info);
    int truncated;

    for (int kept = 0; kept <= 2; kept++) {
        int received = descriptors(CMSG_LEN(kept * sizeof(int)), &truncated);
        CHECK(received == kept && truncated == (kept < 2), "%d descriptors, truncated %d", received, truncated);
    }
    CHECK(descriptors(0, &truncated) == 0 && truncated, "no buffer");
    CHECK(descriptors(3, &truncated) == 0 && truncated, "less than a header");
    CHECK(descriptors(CMSG_LEN(sizeof(int)) - 1, &truncated) == 0 && truncated, "less than a descriptor");

    CHECK(numbers(first + CMSG_SPACE(sizeof(int)), &truncated) == info + sizeof(int) && !truncated, "both");
    CHECK(numbers(first + CMSG_LEN(sizeof(int)) - 1, &truncated) == info + sizeof(int) - 1 && truncated, "the second in part");
    CHECK(numbers(first + CMSG_LEN(0), &truncated) == info && truncated, "the second without data");
    CHECK(numbers(first + 1, &truncated) == info && truncated, "the second not at all");
    CHECK(numbers(CMSG_LEN(info) - 1, &truncated) == info - 1 && truncated, "the first in part");
    without_data();
    CHECK(numbers(2, &truncated) == 0 && truncated, "less than a header");
    if (!bad) {
        puts("ok");
    }
    return bad;
}
