/* Threads that are alive together: threads COUNT */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t all_here = PTHREAD_COND_INITIALIZER;
static int wanted, here;

static void *wait_for_all(void *number)
{
    pthread_mutex_lock(&lock);
    if (++here == wanted)
        pthread_cond_broadcast(&all_here);
    while (here < wanted)
        pthread_cond_wait(&all_here, &lock);
    pthread_mutex_unlock(&lock);
    return number;
}

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 1;
    pthread_t *threads = calloc(count, sizeof *threads);
    pthread_attr_t small;
    long sum = 0;

    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 128 * 1024);
    wanted = count;
    for (long i = 0; i < count; i++) {
        if (pthread_create(&threads[i], &small, wait_for_all, (void *)i)) {
            fputs("cannot create a thread\n", stderr);
            return 1;
        }
    }
    for (int i = 0; i < count; i++) {
        void *number;
        pthread_join(threads[i], &number);
        sum += (long)number;
    }
    printf("%ld\n", sum);
    return 0;
}
