/* The structures of System V IPC are filled like the kernel's, with all bits of modes, times and process IDs. Memory is
   attached many times, at multiples of SHMLBA. */
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#define _TIME_BITS 64
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <time.h>
#include <unistd.h>

static int bad;

static void check(const char *what, int failed, const struct ipc_perm *perm, unsigned mode, const time_t *changed) {
    time_t age = time(NULL) - *changed;
    if (failed) bad = 1, printf("%s: it cannot be read\n", what);
    else if (perm->mode != mode) bad = 1, printf("%s: mode %o\n", what, perm->mode);
    else if (perm->uid != geteuid() || perm->cgid != getegid()) bad = 1, printf("%s: owner\n", what);
    else if (age < 0 || age > 60) bad = 1, printf("%s: changed %lld seconds ago\n", what, (long long)age);
}

int main(void) {
    int memory = shmget(IPC_PRIVATE, 5000, 0640 | IPC_CREAT);
    struct shmid_ds segment;
    memset(&segment, 0xa5, sizeof segment);
    check("shared memory", shmctl(memory, IPC_STAT, &segment), &segment.shm_perm, 0640, &segment.shm_ctime);
    if (segment.shm_segsz != 5000 || segment.shm_cpid != getpid() || segment.shm_nattch) bad = 1, puts("segment");
    segment.shm_perm.mode = 0604;
    if (shmctl(memory, IPC_SET, &segment)) bad = 1, puts("shared memory: it cannot be changed");
    memset(&segment, 0xa5, sizeof segment);
    check("changed memory", shmctl(memory, IPC_STAT, &segment), &segment.shm_perm, 0604, &segment.shm_ctime);
    char *attached[8];
    for (int i = 0; i < 8; i++) {
        attached[i] = shmat(memory, NULL, 0);
        if (attached[i] == (char *)-1) {
            bad = 1, printf("attachment %d: %s\n", i + 1, strerror(errno));
            break;
        }
        if ((unsigned long)attached[i] % SHMLBA) bad = 1, printf("attachment %d: at %p\n", i + 1, attached[i]);
        attached[i][i] = 'a' + i;
        if (memcmp(attached[0], "abcdefgh", i + 1)) bad = 1, printf("attachment %d: other memory\n", i + 1);
    }
    shmctl(memory, IPC_RMID, NULL);

    int semaphores = semget(IPC_PRIVATE, 2, 0640 | IPC_CREAT);
    unsigned short set[] = { 5, 6 }, read[] = { 0, 0 };
    struct semid_ds state;
    union { int value; struct semid_ds *state; unsigned short *all; } argument = { .state = &state };
    memset(&state, 0xa5, sizeof state);
    check("semaphores", semctl(semaphores, 0, IPC_STAT, argument), &state.sem_perm, 0640, &state.sem_ctime);
    if (state.sem_nsems != 2 || state.sem_otime)
        bad = 1, printf("semaphores: used at %lld\n", (long long)state.sem_otime);
    argument.all = set;
    int failed = semctl(semaphores, 0, SETALL, argument);
    argument.all = read;
    if (failed || semctl(semaphores, 0, GETALL, argument) || memcmp(set, read, sizeof set)) bad = 1, puts("SETALL");
    argument.value = 9;
    if (semctl(semaphores, 1, SETVAL, argument) || semctl(semaphores, 1, GETVAL) != 9) bad = 1, puts("SETVAL");
    semctl(semaphores, 0, IPC_RMID);

    int queue = msgget(IPC_PRIVATE, 0640 | IPC_CREAT);
    struct { long type; char text[8]; } sent = { 7, "letter" }, received = { 0 };
    if (msgsnd(queue, &sent, 7, 0)) bad = 1, puts("msgsnd");
    if (msgrcv(queue, &received, 8, -7, 0) != 7 || received.type != 7 || strcmp(received.text, "letter"))
        bad = 1, puts("msgrcv");
    struct msqid_ds messages;
    memset(&messages, 0xa5, sizeof messages);
    check("queue", msgctl(queue, IPC_STAT, &messages), &messages.msg_perm, 0640, &messages.msg_rtime);
    if (messages.msg_lspid != getpid() || messages.msg_lrpid != getpid())
        bad = 1, printf("queue: sent by %d, received by %d\n", messages.msg_lspid, messages.msg_lrpid);
    if (messages.msg_stime != messages.msg_rtime && messages.msg_stime + 1 != messages.msg_rtime)
        bad = 1, puts("queue: sent");
    msgctl(queue, IPC_RMID, NULL);
    if (!bad) puts("ok");
    return bad;
}
