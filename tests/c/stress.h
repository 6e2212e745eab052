/* Purpose: what the stress programs share: a scale (RT_STRESS, 1 unless set),
 * threads that start together, random numbers seeded by RT_SEED (0), and a watchdog that turns
 * a lost wake-up into a failure instead of a hang. */
#ifndef RT_TESTS_STRESS_H
#define RT_TESTS_STRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define STRESS_UNUSED static inline __attribute__((unused))

STRESS_UNUSED unsigned long stress_scale(void) {
    const char *s = getenv("RT_STRESS");
    long n = s ? strtol(s, NULL, 10) : 1;
    return n > 0 ? (unsigned long)n : 1;
}

/* Ends the program by SIGALRM when a test takes that long: something sleeps for ever. */
STRESS_UNUSED void stress_watchdog(unsigned seconds) {
    alarm(seconds * (unsigned)stress_scale());
}

typedef struct stress_random {
    uint64_t s;
} stress_random;

STRESS_UNUSED uint64_t stress_next(stress_random *r) {
    r->s ^= r->s << 13;
    r->s ^= r->s >> 7;
    r->s ^= r->s << 17;
    return r->s;
}

STRESS_UNUSED uint32_t stress_below(stress_random *r, uint32_t n) {
    return (uint32_t)((stress_next(r) >> 32) % n);
}

typedef struct stress_thread {
    pthread_t id;
    pthread_barrier_t *gate;
    void (*run)(void *arg, unsigned number, stress_random *random);
    void *arg;
    unsigned number;
} stress_thread;

STRESS_UNUSED void *stress_main(void *p) {
    stress_thread *t = p;
    const char *seed = getenv("RT_SEED");
    uint64_t first = seed ? strtoull(seed, NULL, 10) : 0;
    stress_random random = {0x9e3779b97f4a7c15ull * (t->number + 1 + 64 * first)};
    pthread_barrier_wait(t->gate);
    t->run(t->arg, t->number, &random);
    return NULL;
}

/* Runs all parts at once, part i in count[i] threads, numbered from 0 throughout. */
STRESS_UNUSED void stress_run(void *arg, size_t parts,
                              void (*const *run)(void *, unsigned, stress_random *),
                              const unsigned *count) {
    stress_thread thread[32];
    pthread_barrier_t gate;
    unsigned n = 0;
    for (size_t i = 0; i < parts; i++)
        for (unsigned k = 0; k < count[i]; k++)
            thread[n++] = (stress_thread){.gate = &gate, .run = run[i], .arg = arg};
    pthread_barrier_init(&gate, NULL, n);
    for (unsigned i = 0; i < n; i++) {
        thread[i].number = i;
        if (pthread_create(&thread[i].id, NULL, stress_main, &thread[i]) != 0) abort();
    }
    for (unsigned i = 0; i < n; i++) pthread_join(thread[i].id, NULL);
    pthread_barrier_destroy(&gate);
}

#endif
