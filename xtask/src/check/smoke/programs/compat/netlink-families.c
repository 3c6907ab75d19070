/* That sockets of netlink families can be made and that requests of rtnetlink and nfnetlink are answered. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int bad;
#define WRONG(...) (printf(__VA_ARGS__), printf(" (%s)\n", strerror(errno)), bad++)

/* Sends a request; returns the type of the answer, or minus the error in it. */
static int ask(int s, void *request, size_t length, char *answer, size_t size) {
    memset(answer, 0, size);
    if (send(s, request, length, 0) != (ssize_t)length) { WRONG("send"); return 0; }
    if (recv(s, answer, size, 0) < (ssize_t)sizeof(struct nlmsghdr)) { WRONG("recv"); return 0; }
    struct nlmsghdr *h = (void *)answer;
    if (h->nlmsg_seq != 42) WRONG("sequence %x", h->nlmsg_seq);
    return h->nlmsg_type == NLMSG_ERROR ? ((struct nlmsgerr *)NLMSG_DATA(h))->error : h->nlmsg_type;
}

int main(void) {
    static char buf[32768] __attribute__((aligned(8)));
    uint16_t order = 1; int little = *(char *)&order, type;
    struct timeval t = { 3, 0 };
    int n = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER);
    if (n < 0) WRONG("NETLINK_NETFILTER");
    else {
        setsockopt(n, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
        /* nf_tables: the number of the present generation; a list of tables */
        struct { struct nlmsghdr h; uint8_t family, version; uint16_t id; } q = { { sizeof q, 10 << 8 | 16, NLM_F_REQUEST, 42, 0 } };
        if (!little) {
            /* It cannot be converted for another byte order: see the patch. */
            if (send(n, &q, sizeof q, 0) >= 0 || errno != EOPNOTSUPP) WRONG("nf_tables is not refused");
        } else if ((type = ask(n, &q, sizeof q, buf, sizeof buf)) == (10 << 8 | 15)) {
            struct nlattr *a = (void *)(buf + NLMSG_LENGTH(4));
            if (a->nla_len != 8 || a->nla_type != 1) WRONG("the generation has type %x of %x bytes", a->nla_type, a->nla_len);
        } else if (type != -EINVAL && type != -EPERM && type != -EOPNOTSUPP) WRONG("NFT_MSG_GETGEN: %d", type);
        q.h.nlmsg_type = 250 << 8;
        type = ask(n, &q, sizeof q, buf, sizeof buf);
        if (type != -EINVAL && type != -EPERM) WRONG("an unknown subsystem: %d", type);
    }
    /* For the other byte order these are not converted. */
    int families[] = { NETLINK_GENERIC, NETLINK_XFRM, NETLINK_SOCK_DIAG, NETLINK_CRYPTO, NETLINK_FIB_LOOKUP, NETLINK_AUDIT };
    for (int i = 0; little && i < 6; i++) if (socket(AF_NETLINK, SOCK_RAW, families[i]) < 0 && errno != EPROTONOSUPPORT) WRONG("family %d", families[i]);
    if (little) {
        int g = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC);
        struct { struct nlmsghdr h; uint8_t cmd, version; uint16_t pad; struct nlattr a; char name[8]; } q =
            { { sizeof q, 16, NLM_F_REQUEST, 42, 0 }, 3 /* GETFAMILY */, 1, 0, { 11, 2 }, "nlctrl" };
        if (g < 0) WRONG("NETLINK_GENERIC");
        else if ((type = ask(g, &q, sizeof q, buf, sizeof buf)) != 16) WRONG("the family nlctrl: %d", type);
    }
    int r = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    setsockopt(r, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    struct { struct nlmsghdr h; struct rtmsg m; } rule = { { sizeof rule, RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, 42, 0 }, { AF_INET } };
    if (little && (type = ask(r, &rule, sizeof rule, buf, sizeof buf)) != RTM_NEWRULE && type != NLMSG_DONE && type != -EOPNOTSUPP) WRONG("RTM_GETRULE: %d", type);
    rule.h.nlmsg_type = 0x7ff0;
    if (!little) {
        /* Nor can a message of which nothing is known. */
        if (send(r, &rule, sizeof rule, 0) >= 0 || errno != EOPNOTSUPP) WRONG("an unknown type of message is not refused");
    } else if ((type = ask(r, &rule, sizeof rule, buf, sizeof buf)) != -EOPNOTSUPP) WRONG("an unknown type of message: %d", type);
    if (!bad) puts("ok");
    return bad != 0;
}
