/* A thread that ends in a signal handler is unwound through the signal frame to the cleanup of the function below. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static volatile int cleaned;

static void clean(void *flags) { cleaned = *(int *)flags + 1; }
static void on_signal(int number) { pthread_exit(&cleaned); }
static void on_signal_with_info(int number, siginfo_t *info, void *context) { pthread_exit(&cleaned); }

static void *interrupted(void *flags) {
    pthread_cleanup_push(clean, flags);
    pthread_kill(pthread_self(), SIGUSR1);
    pause();
    pthread_cleanup_pop(0);
    return NULL;
}

int main(void) {
    int bad = 0, flags[] = { 0, SA_SIGINFO };
    for (int i = 0; i < 2; i++) {
        struct sigaction action = { .sa_flags = flags[i] };
        pthread_t thread;
        void *result = NULL;
        if (flags[i] & SA_SIGINFO) action.sa_sigaction = on_signal_with_info;
        else action.sa_handler = on_signal;
        sigaction(SIGUSR1, &action, NULL);
        cleaned = 0;
        pthread_create(&thread, NULL, interrupted, &flags[i]);
        pthread_join(thread, &result);
        if (result != &cleaned) bad = 1, printf("flags %x: the thread did not end in the handler\n", flags[i]);
        if (cleaned != flags[i] + 1) bad = 1, printf("flags %x: no cleanup\n", flags[i]);
    }
    unsigned cpu = -1;
    if (getcpu(&cpu, NULL) || cpu > 4096) bad = 1, printf("getcpu: %u\n", cpu);
    if (!bad) puts("ok");
    return bad;
}
