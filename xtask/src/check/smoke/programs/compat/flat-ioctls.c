/* Requests of ioctl about namespaces, processes, files and sockets, and the errors of those that do not fit. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <net/if.h>
#include <pty.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bad;
#define WRONG(...) (printf(__VA_ARGS__), printf(" (%s)\n", strerror(errno)), bad++)

int main(void) {
    int ns = open("/proc/self/ns/uts", O_RDONLY), r;
    if ((r = ioctl(ns, _IO(0xb7, 3))) != 0x04000000) WRONG("NS_GET_NSTYPE %x", r);
    if ((r = ioctl(ns, _IO(0xb7, 1))) < 0 && errno != EPERM) WRONG("NS_GET_USERNS");
    if (r >= 0) {
        uint32_t owner = -1;
        if (ioctl(r, _IO(0xb7, 4), &owner)) WRONG("NS_GET_OWNER_UID");
        if (owner > 1u << 30) WRONG("owner %x", owner);
        if (ioctl(r, _IO(0xb7, 2)) != -1 || errno != EPERM) WRONG("NS_GET_PARENT");
    }
    if (ioctl(ns, _IO(0xb7, 2)) != -1 || errno != EINVAL) WRONG("NS_GET_PARENT of a flat namespace");
    int mnt = open("/proc/self/ns/mnt", O_RDONLY); uint64_t id = 0;
    if (ioctl(mnt, _IOR(0xb7, 5, uint64_t), &id) ? errno != ENOTTY : !id) WRONG("NS_GET_MNTNS_ID %llx", (unsigned long long)id);
    struct { uint32_t size, count; uint64_t id; } info = { sizeof info };
    if (ioctl(mnt, _IOC(_IOC_READ, 0xb7, 10, 16), &info) ? errno != ENOTTY : !info.count || info.count > 100000 || info.id != id) WRONG("NS_MNT_GET_INFO %u", info.count);
    int pidns = open("/proc/self/ns/pid", O_RDONLY);
    if ((r = ioctl(pidns, _IOR(0xb7, 8, int), getpid())) != getpid() && errno != ENOTTY) WRONG("NS_GET_PID_IN_PIDNS %d", r);

    int pidfd = syscall(SYS_pidfd_open, getpid(), 0);
    struct { uint64_t mask, cgroup; uint32_t pid, tgid, ppid, ids[8]; int32_t code; } p = { .mask = 3 };
    if (ioctl(pidfd, _IOC(_IOC_READ | _IOC_WRITE, 0xff, 11, 64), &p) ? errno != ENOTTY : p.pid != getpid() || p.tgid != getpid() || p.ppid != getppid() || p.ids[0] != getuid()) WRONG("PIDFD_GET_INFO: pid %u", p.pid);
    if ((r = ioctl(pidfd, _IO(0xff, 10), 0)) < 0 ? errno != ENOTTY : ioctl(r, _IO(0xb7, 3)) != 0x04000000) WRONG("PIDFD_GET_UTS_NAMESPACE");

    char name[] = "/tmp/flatXXXXXX"; int f = mkstemp(name); unlink(name);
    struct fsxattr x; memset(&x, 0xff, sizeof x);
    if (ioctl(f, FS_IOC_FSGETXATTR, &x)) { if (errno != ENOTTY && errno != EOPNOTSUPP) WRONG("FS_IOC_FSGETXATTR"); }
    else if (x.fsx_projid || x.fsx_extsize) WRONG("project %x", x.fsx_projid);
    else if (ioctl(f, FS_IOC_FSSETXATTR, &x) && errno != EOPNOTSUPP) WRONG("FS_IOC_FSSETXATTR");
    if (ioctl(f, FS_IOC_FSGETXATTR, (void *)4) != -1 || (errno != EFAULT && errno != ENOTTY && errno != EOPNOTSUPP)) WRONG("FS_IOC_FSGETXATTR to a bad address");
    char label[256]; if (ioctl(f, _IOR(0x94, 49, char[256]), label) && errno != ENOTTY) WRONG("FS_IOC_GETFSLABEL");
    unsigned char uuid[17] = ""; if (ioctl(f, _IOR(0x15, 0, uuid), uuid) ? errno != ENOTTY : uuid[0] > 16) WRONG("FS_IOC_GETFSUUID of %d bytes", uuid[0]);
    char policy[12] = { 0 }; if (ioctl(f, _IOW('f', 21, policy), policy) != -1 || (errno != EOPNOTSUPP && errno != ENOTTY && errno != ENODATA)) WRONG("FS_IOC_GET_ENCRYPTION_POLICY");
    if (write(f, "same", 4) != 4) return 1;
    union { struct file_dedupe_range r; uint64_t room[7]; } d = { .r = { .src_length = 4, .dest_count = 1 } };
    d.r.info[0].dest_fd = -1;
    r = ioctl(f, FIDEDUPERANGE, &d);
    if (r ? errno != EOPNOTSUPP && errno != EINVAL && errno != ENOTTY : d.r.info[0].status != -EBADF) WRONG("FIDEDUPERANGE: status %d", d.r.info[0].status);

    int ep = epoll_create1(0); struct { uint32_t us; uint16_t budget; uint8_t prefer, pad; } e = { 50, 8, 1, 0 }, g = { 0 };
    if (!ioctl(ep, _IOC(_IOC_WRITE, 0x8a, 1, 8), &e) && (ioctl(ep, _IOC(_IOC_READ, 0x8a, 2, 8), &g) || g.us != 50 || g.budget != 8)) WRONG("EPIOCGPARAMS %u", g.us);
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (ioctl(s, 0x894c /* SIOCGSKNS */) < 0 && errno != EPERM) WRONG("SIOCGSKNS");
    struct ifreq n = { 0 }; strcpy(n.ifr_name, "no-such"); strcpy(n.ifr_newname, "other");
    if (ioctl(s, 0x8923 /* SIOCSIFNAME */, &n) != -1 || (errno != ENODEV && errno != EPERM)) WRONG("SIOCSIFNAME");
    struct { uint32_t cmd, data; } link = { 0x0a /* ETHTOOL_GLINK */, 7 };
    strcpy(n.ifr_name, "lo"); n.ifr_data = (void *)&link;
    if (ioctl(s, 0x8946 /* SIOCETHTOOL */, &n) ? errno != EOPNOTSUPP : link.data > 1) WRONG("ETHTOOL_GLINK %u", link.data);
    n.ifr_data = (void *)4;
    if (ioctl(s, 0x8946, &n) != -1 || errno != EFAULT) WRONG("ETHTOOL_GLINK to a bad address");
    int m, t, v = -1;
    if (!openpty(&m, &t, NULL, NULL, NULL)) {
        if (ioctl(m, TIOCGPTLCK, &v) || v) WRONG("TIOCGPTLCK %d", v);
        v = 1; if (ioctl(m, TIOCPKT, &v) || (v = 0, ioctl(m, TIOCGPKT, &v)) || v != 1) WRONG("TIOCGPKT %d", v);
        if (ioctl(t, TIOCGEXCL, &v) || v) WRONG("TIOCGEXCL %d", v);
    }
    if (ioctl(f, _IO(0xb7, 3)) != -1 || errno != ENOTTY) WRONG("NS_GET_NSTYPE of a file");
    if (ioctl(f, _IO('Z', 98)) != -1 || errno != ENOTTY) WRONG("an unknown request");
    if (ioctl(-1, _IO(0xb7, 3)) != -1 || errno != EBADF) WRONG("no descriptor");
    if (!bad) puts("ok");
    return bad != 0;
}
