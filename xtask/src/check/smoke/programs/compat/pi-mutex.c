/* Mutexes with priority inheritance work, or cannot be made (as where emulator and program have different byte orders). */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static pthread_mutex_t mutex;
static int count;

static void *add(void *arg)
{
    for (int i = 0; i < 20000; i++) {
        if (pthread_mutex_lock(&mutex)) {
            break;
        }
        count++;
        pthread_mutex_unlock(&mutex);
    }
    return arg;
}

static void *hold(void *arg)
{
    pthread_mutex_lock(&mutex);
    usleep(50000);
    pthread_mutex_unlock(&mutex);
    return arg;
}

int main(void)
{
    pthread_mutexattr_t attr;
    pthread_t threads[4];
    int bad = 0, error;

    alarm(20);
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
    error = pthread_mutex_init(&mutex, &attr);
    if (error == ENOTSUP) {
        puts("ok");
        return 0;
    }
    pthread_create(&threads[0], NULL, hold, NULL);
    usleep(10000);
    error = pthread_mutex_trylock(&mutex);
    if (error != EBUSY) {
        printf("trylock: %d\n", error);
        bad = 1;
    }
    error = pthread_mutex_lock(&mutex);
    if (error) {
        printf("lock: %d\n", error);
        bad = 1;
    }
    pthread_mutex_unlock(&mutex);
    pthread_join(threads[0], NULL);
    for (int i = 0; i < 4; i++) {
        pthread_create(&threads[i], NULL, add, NULL);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    if (count != 80000) {
        printf("count is %d\n", count);
        bad = 1;
    }
    if (!bad) {
        puts("ok");
    }
    return bad;
}
