/* A thread that gets signals sees either the old action or the new one, while another thread changes it. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static atomic_int calls, done;

static void handler(int number)
{
    calls++;
}

static void *change(void *unused)
{
    time_t start = time(NULL);

    while (time(NULL) < start + 3) {
        signal(SIGUSR1, handler);
        signal(SIGUSR1, SIG_IGN);
        signal(SIGUSR1, handler);
        signal(SIGURG, handler);
        signal(SIGURG, SIG_DFL);
    }
    done = 1;
    return NULL;
}

int main(void)
{
    pthread_t thread;
    struct sigaction once = { .sa_handler = handler, .sa_flags = SA_RESETHAND };

    signal(SIGUSR1, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    pthread_create(&thread, NULL, change, NULL);
    while (!done) {
        raise(SIGUSR1);
        raise(SIGURG);
        if (!(calls % 100)) {
            /* What a child inherits can be changed there. */
            pid_t child = fork();
            if (!child) {
                signal(SIGUSR1, handler);
                _exit(raise(SIGUSR1));
            }
        }
    }
    pthread_join(thread, NULL);
    if (!calls) {
        puts("no signal arrived");
        return 1;
    }
    calls = 0;
    sigaction(SIGURG, &once, NULL);
    raise(SIGURG);
    raise(SIGURG);
    if (calls != 1) {
        printf("SA_RESETHAND: %d calls\n", calls);
        return 1;
    }
    puts("ok");
    return 0;
}
