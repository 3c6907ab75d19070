/* Options of sockets, set and read back, and the control messages that they lead to. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int bad;
#define WRONG(...) (printf(__VA_ARGS__), printf(" (%s)\n", strerror(errno)), bad++)

static void number(int s, int level, int option, int set, int want, const char *name) {
    int got = -1; socklen_t l = sizeof got;
    if (setsockopt(s, level, option, &set, sizeof set)) { if (errno != EPERM) WRONG("set %s", name); return; }
    if (getsockopt(s, level, option, &got, &l) || l != sizeof got || got != want) WRONG("%s is %d of %d bytes, not %d", name, got, (int)l, want);
}

/* Sends a datagram over loopback with the control message given and returns what came with it. */
static struct msghdr *exchange(int s, void *control, size_t length) {
    static char data[16], c[512]; static struct iovec io = { data, sizeof data }; static struct msghdr m;
    struct sockaddr_storage self; socklen_t l = sizeof self;
    getsockname(s, (void *)&self, &l);
    struct iovec o = { "abcd", 4 };
    struct msghdr out = { .msg_name = &self, .msg_namelen = l, .msg_iov = &o, .msg_iovlen = 1, .msg_control = control, .msg_controllen = length };
    if (sendmsg(s, &out, 0) != 4) WRONG("sendmsg");
    m = (struct msghdr){ .msg_iov = &io, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c };
    if (recvmsg(s, &m, 0) < 0) WRONG("recvmsg");
    return &m;
}

static void *find(struct msghdr *m, int level, int type, size_t length) {
    for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h))
        if (h->cmsg_level == level && h->cmsg_type == type) {
            if (h->cmsg_len < CMSG_LEN(length)) WRONG("message %d/%d has %d bytes", level, type, (int)(h->cmsg_len - CMSG_LEN(0)));
            return CMSG_DATA(h);
        }
    WRONG("no message %d/%d", level, type);
    return NULL;
}

static int udp(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    bind(s, (void *)&a, sizeof a);
    struct timeval t = { 3, 0 };
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    return s;
}

/* Receives a message with the times that an option asks for: numbers, of which two are a time. */
static void clock_option(int option, int flags, const char *name, int wide, int numbers) {
    int s = udp();
    int64_t n[6] = { 0 };
    long narrow[6];
    time_t now = time(NULL);
    number(s, SOL_SOCKET, option, flags, flags, name);
    usleep(50000); /* The kernel turns stamps of arrival on a little later. */
    void *p = find(exchange(s, NULL, 0), SOL_SOCKET, option, numbers * (wide ? sizeof *n : sizeof *narrow));
    if (p && wide) memcpy(n, p, numbers * sizeof *n);
    if (p && !wide) {
        memcpy(narrow, p, numbers * sizeof *narrow);
        for (int i = 0; i < numbers; i++) n[i] = narrow[i];
    }
    if (n[0] < now - 5 || n[0] > now + 5 || (uint64_t)n[1] > 999999999 || n[4]) WRONG("%s: %lld", name, (long long)n[0]);
    close(s);
}

static void clocks(void) {
    /* In these, a time has two numbers as long as a register, whatever time_t is. */
    clock_option(29, 1, "SO_TIMESTAMP", 0, 2);
    clock_option(35, 1, "SO_TIMESTAMPNS", 0, 2);
    clock_option(37, 8 | 16, "SO_TIMESTAMPING", 0, 6);
    clock_option(SO_TIMESTAMP_NEW, 1, "SO_TIMESTAMP_NEW", 1, 2);
    clock_option(SO_TIMESTAMPNS_NEW, 1, "SO_TIMESTAMPNS_NEW", 1, 2);
    int s = udp();
    int64_t limit[2] = { 7, 0 }, got[2] = { 0 }; socklen_t l = sizeof got;
    if (setsockopt(s, SOL_SOCKET, SO_RCVTIMEO_NEW, limit, sizeof limit) || getsockopt(s, SOL_SOCKET, SO_RCVTIMEO_NEW, got, &l) || got[0] != 7) WRONG("SO_RCVTIMEO_NEW %lld", (long long)got[0]);
    close(s);
}

static void messages(void) {
    int s = udp(), one = 1, v; void *p;
    union { struct cmsghdr h; char c[CMSG_SPACE(sizeof(int))]; } c = { .h = { .cmsg_len = CMSG_LEN(sizeof v), .cmsg_level = SOL_IP, .cmsg_type = IP_TTL } };
    number(s, SOL_IP, IP_RECVTTL, 1, 1, "IP_RECVTTL");
    number(s, SOL_IP, 20, 1, 1, "IP_RECVORIGDSTADDR");
    v = 33; memcpy(CMSG_DATA(&c.h), &v, sizeof v);
    struct msghdr *m = exchange(s, &c, sizeof c);
    if ((p = find(m, SOL_IP, IP_TTL, sizeof v))) { memcpy(&v, p, sizeof v); if (v != 33) WRONG("IP_TTL %d", v); }
    struct sockaddr_in a;
    if ((p = find(m, SOL_IP, 20, sizeof a))) { memcpy(&a, p, sizeof a); if (a.sin_family != AF_INET || a.sin_addr.s_addr != htonl(INADDR_LOOPBACK)) WRONG("IP_ORIGDSTADDR has family %d", a.sin_family); }
    uint16_t size = 2;
    c.h.cmsg_level = SOL_UDP; c.h.cmsg_type = 103; c.h.cmsg_len = CMSG_LEN(sizeof size); memcpy(CMSG_DATA(&c.h), &size, sizeof size);
    if ((m = exchange(s, &c, sizeof c))->msg_iovlen != 1) WRONG("UDP_SEGMENT");
    char rest[8]; if (recv(s, rest, sizeof rest, MSG_DONTWAIT) != 2) WRONG("the second half of a segmented datagram");
    number(s, SOL_UDP, 103, 1000, 1000, "UDP_SEGMENT");
    close(s);

    s = socket(AF_INET6, SOCK_DGRAM, 0);
    struct sockaddr_in6 b = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
    if (s >= 0 && !bind(s, (void *)&b, sizeof b)) {
        number(s, SOL_IPV6, IPV6_RECVTCLASS, 1, 1, "IPV6_RECVTCLASS");
        number(s, SOL_IPV6, IPV6_RECVPKTINFO, 1, 1, "IPV6_RECVPKTINFO");
        number(s, SOL_IPV6, 62, 1, 1, "IPV6_DONTFRAG");
        number(s, SOL_IPV6, 73, 9, 9, "IPV6_MINHOPCOUNT");
        setsockopt(s, SOL_IPV6, 73, (int[]){ 0 }, sizeof(int));
        v = 32;
        c.h.cmsg_level = SOL_IPV6; c.h.cmsg_type = IPV6_TCLASS; c.h.cmsg_len = CMSG_LEN(sizeof v); memcpy(CMSG_DATA(&c.h), &v, sizeof v);
        m = exchange(s, &c, sizeof c);
        if ((p = find(m, SOL_IPV6, IPV6_TCLASS, sizeof v))) { memcpy(&v, p, sizeof v); if (v != 32) WRONG("IPV6_TCLASS %d", v); }
        struct in6_pktinfo i;
        if ((p = find(m, SOL_IPV6, IPV6_PKTINFO, sizeof i))) { memcpy(&i, p, sizeof i); if (i.ipi6_ifindex != 1) WRONG("IPV6_PKTINFO: interface %u", i.ipi6_ifindex); }
        struct sockaddr_in6 closed = b; closed.sin6_port = htons(9);
        setsockopt(s, SOL_IPV6, IPV6_RECVERR, (int[]){ 1 }, sizeof(int));
        int k = socket(AF_INET6, SOCK_DGRAM, 0);
        setsockopt(k, SOL_IPV6, IPV6_RECVERR, (int[]){ 1 }, sizeof(int));
        connect(k, (void *)&closed, sizeof closed);
        if (write(k, "x", 1) < 0) {}
        usleep(20000);
        char data[8], e[256]; struct iovec io = { data, sizeof data };
        struct msghdr q = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = e, .msg_controllen = sizeof e };
        if (recvmsg(k, &q, MSG_ERRQUEUE) < 0) WRONG("error queue");
        else if ((p = find(&q, SOL_IPV6, IPV6_RECVERR, sizeof(struct sock_extended_err) + sizeof closed))) {
            struct sock_extended_err ee; memcpy(&ee, p, sizeof ee); memcpy(&closed, (char *)p + sizeof ee, sizeof closed);
            if (ee.ee_errno != ECONNREFUSED || closed.sin6_family != AF_INET6) WRONG("error %u from family %d", ee.ee_errno, closed.sin6_family);
        }
    }
}

int main(void) {
#if defined(__hppa__) || defined(__sparc__)
    puts("options have other numbers on this machine");
    return 77;
#endif
    int t = socket(AF_INET, SOCK_STREAM, 0), u[2], v; socklen_t l;
    number(t, SOL_SOCKET, 49, 0, 0, "SO_INCOMING_CPU");
    number(t, SOL_SOCKET, 46, 50, 50, "SO_BUSY_POLL");
    number(t, SOL_SOCKET, 60, 1, 1, "SO_ZEROCOPY");
    number(t, SOL_SOCKET, 36, 5, 5, "SO_MARK");
    number(t, SOL_SOCKET, 40, 1, 1, "SO_RXQ_OVFL");
    number(t, SOL_SOCKET, 45, 1, 1, "SO_SELECT_ERR_QUEUE");
    number(t, SOL_SOCKET, 72, 1, 1, "SO_BUF_LOCK");
    number(t, SOL_SOCKET, 47, 123456, 123456, "SO_MAX_PACING_RATE as an int");
    unsigned long rate = 1234567, r = 0; l = sizeof r;
    if (setsockopt(t, SOL_SOCKET, 47, &rate, sizeof rate) || getsockopt(t, SOL_SOCKET, 47, &r, &l) || r != rate || l != sizeof r) WRONG("SO_MAX_PACING_RATE %lu of %d bytes", r, (int)l);
    uint64_t cookie = 0; l = sizeof cookie;
    if (getsockopt(t, SOL_SOCKET, 57, &cookie, &l) || !cookie || cookie >> 40) WRONG("SO_COOKIE %llx", (unsigned long long)cookie);
    l = sizeof cookie; if (getsockopt(t, SOL_SOCKET, 71, &cookie, &l) || l != 8) WRONG("SO_NETNS_COOKIE");
    l = 4; if (getsockopt(t, SOL_SOCKET, 57, &cookie, &l) != -1 || errno != EINVAL) WRONG("SO_COOKIE of 4 bytes");
    unsigned mem[16] = { 0 }; l = sizeof mem;
    if (getsockopt(t, SOL_SOCKET, 55, mem, &l) || l < 32 || mem[1] < 1000 || mem[1] > 1u << 28) WRONG("SO_MEMINFO %u of %d bytes", mem[1], (int)l);
    struct { int clock; unsigned flags; } tx = { CLOCK_MONOTONIC, 2 }, gx = { 0 }; l = sizeof gx;
    if (setsockopt(t, SOL_SOCKET, 61, &tx, sizeof tx) || getsockopt(t, SOL_SOCKET, 61, &gx, &l) || gx.clock != CLOCK_MONOTONIC || gx.flags != 2) WRONG("SO_TXTIME %u", gx.flags);
    struct sock_filter code = { BPF_RET | BPF_K, 0, 0, 0xffff }; struct sock_fprog prog = { 1, &code };
    int g = socket(AF_INET, SOCK_DGRAM, 0); struct sockaddr_in any = { .sin_family = AF_INET };
    setsockopt(g, SOL_SOCKET, SO_REUSEPORT, (int[]){ 1 }, sizeof(int)); bind(g, (void *)&any, sizeof any);
    if (setsockopt(g, SOL_SOCKET, 51, &prog, sizeof prog)) WRONG("SO_ATTACH_REUSEPORT_CBPF");
    if (setsockopt(g, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof prog) || setsockopt(g, SOL_SOCKET, SO_DETACH_FILTER, (int[]){ 0 }, sizeof(int))) WRONG("SO_DETACH_FILTER");
    if (setsockopt(g, SOL_SOCKET, SO_DETACH_FILTER, (int[]){ 0 }, sizeof(int)) != -1 || errno != ENOENT) WRONG("SO_DETACH_FILTER again");
    if (setsockopt(g, SOL_SOCKET, 9999, (int[]){ 0 }, sizeof(int)) != -1 || errno != ENOPROTOOPT) WRONG("an unknown option");
    l = sizeof v; if (getsockopt(g, SOL_SOCKET, 9999, &v, &l) != -1 || errno != ENOPROTOOPT) WRONG("reading an unknown option");
    char dev[16] = "x"; l = sizeof dev;
    if (getsockopt(g, SOL_SOCKET, SO_BINDTODEVICE, dev, &l) || l) WRONG("SO_BINDTODEVICE of %d bytes", (int)l);

    number(t, SOL_IP, 24, 1, 1, "IP_BIND_ADDRESS_NO_PORT");
    number(t, SOL_IP, 21, 5, 5, "IP_MINTTL");
    number(t, SOL_IP, 49, 0, 0, "IP_MULTICAST_ALL");
    number(g, SOL_IP, 19, 1, 1, "IP_TRANSPARENT");
    struct in_addr ia; l = sizeof ia; if (getsockopt(g, SOL_IP, IP_MULTICAST_IF, &ia, &l) || ia.s_addr) WRONG("IP_MULTICAST_IF");
    struct group_req join = { .gr_interface = 1 }; struct sockaddr_in group = { .sin_family = AF_INET, .sin_addr.s_addr = inet_addr("239.1.2.3") };
    memcpy(&join.gr_group, &group, sizeof group);
    if (setsockopt(g, SOL_IP, MCAST_JOIN_GROUP, &join, sizeof join)) WRONG("MCAST_JOIN_GROUP");
    if (setsockopt(g, SOL_IP, MCAST_JOIN_GROUP, &join, sizeof join) != -1 || errno != EADDRINUSE) WRONG("MCAST_JOIN_GROUP twice");
    if (setsockopt(g, SOL_IP, MCAST_LEAVE_GROUP, &join, sizeof join)) WRONG("MCAST_LEAVE_GROUP");
    if (setsockopt(g, SOL_IP, MCAST_JOIN_GROUP, &join, sizeof join - 8) != -1 || errno != EINVAL) WRONG("a short MCAST_JOIN_GROUP");
    number(t, SOL_TCP, TCP_USER_TIMEOUT, 4321, 4321, "TCP_USER_TIMEOUT");
    number(t, SOL_TCP, 25, 1000, 1000, "TCP_NOTSENT_LOWAT");
    char cc[16] = ""; l = sizeof cc;
    if (getsockopt(t, SOL_TCP, TCP_CONGESTION, cc, &l) || strlen(cc) < 3) WRONG("TCP_CONGESTION %s", cc);
    if (setsockopt(t, SOL_TCP, TCP_CONGESTION, cc, strlen(cc))) WRONG("setting TCP_CONGESTION %s", cc);
    if (setsockopt(t, SOL_TCP, TCP_CONGESTION, "no-such", 7) != -1 || errno != ENOENT) WRONG("an unknown TCP_CONGESTION");
    struct tcp_info ti = { 0 }; l = sizeof ti;
    if (getsockopt(t, SOL_TCP, TCP_INFO, &ti, &l) || l < 100 || ti.tcpi_state != 7 || ti.tcpi_snd_cwnd < 1 || ti.tcpi_snd_cwnd > 1000) WRONG("TCP_INFO: window %u of %d bytes", ti.tcpi_snd_cwnd, (int)l);

    socketpair(AF_UNIX, SOCK_STREAM, 0, u);
    unsigned groups[1024]; l = sizeof groups;
    if (getsockopt(u[0], SOL_SOCKET, 59, groups, &l) || (l && groups[0] > 1u << 20)) WRONG("SO_PEERGROUPS %x", groups[0]);
    v = -1; l = sizeof v; if (getsockopt(u[0], SOL_SOCKET, 77, &v, &l) || v < 0) WRONG("SO_PEERPIDFD %d", v);
    number(u[0], SOL_SOCKET, 76, 1, 1, "SO_PASSPIDFD");
    char d[4], c[256]; struct iovec io = { d, sizeof d }; struct msghdr m = { .msg_iov = &io, .msg_iovlen = 1, .msg_control = c, .msg_controllen = sizeof c };
    void *p; if (write(u[1], "x", 1) == 1 && recvmsg(u[0], &m, 0) == 1 && (p = find(&m, SOL_SOCKET, 4, sizeof v))) { memcpy(&v, p, sizeof v); if (close(v)) WRONG("SCM_PIDFD %d", v); }
    int k = socket(17 /* AF_PACKET */, SOCK_DGRAM, htons(0x0800));
    if (k >= 0) {
        number(k, 263 /* SOL_PACKET */, 8, 1, 1, "PACKET_AUXDATA");
        number(k, 263, 10, 2, 2, "PACKET_VERSION");
        struct { int interface; uint16_t type, length; uint8_t address[8]; } member = { 1, 1, 0 };
        if (setsockopt(k, 263, 1, &member, sizeof member)) WRONG("PACKET_ADD_MEMBERSHIP");
        unsigned stats[2] = { 99999, 99999 }; l = sizeof stats;
        if (getsockopt(k, 263, 6, stats, &l) || l != sizeof stats || stats[0] > 1000) WRONG("PACKET_STATISTICS %u", stats[0]);
    }
    clocks(); messages();
    if (!bad) puts("ok");
    return bad != 0;
}
