/* C's threads for librdkafka, with a wait that goes by a clock nobody sets.
 *
 * librdkafka keeps its deadlines by the monotonic clock, but waits by `cnd_timedwait`, whose
 * deadline is one of the wall clock. Set back by an hour while a thread waits, that is an
 * hour more: no heartbeat, no request, no time-out of a record in all that time. What is
 * left of the wait is measured here when it begins, and waited for by the monotonic clock.
 *
 * librdkafka finds this file before the one of the system: see build.rs. */
#include_next <threads.h>

#if defined(__GLIBC_PREREQ) && !defined(TRACER_THREADS_H)
#if __GLIBC_PREREQ(2, 30)
#define TRACER_THREADS_H

#include <errno.h>
#include <pthread.h>
#include <time.h>

/* Since glibc 2.30. Declared here because its header shows it to _GNU_SOURCE alone. */
extern int pthread_cond_clockwait(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);

/* The longest wait in nanoseconds. The clock may have been set between the caller's look at
 * it and the one here. A wait that ends early does no harm: the one caller,
 * `cnd_timedwait_ms`, looks at the monotonic clock and waits on. */
#define TRACER_LONGEST_WAIT 1000000000LL

static inline int tracer_cnd_timedwait(cnd_t *cond, mtx_t *mutex, const struct timespec *deadline) {
        struct timespec wall, until;
        long long left;
        int result;

        clock_gettime(CLOCK_REALTIME, &wall);
        clock_gettime(CLOCK_MONOTONIC, &until);
        left = deadline->tv_sec - wall.tv_sec > 1
                   ? TRACER_LONGEST_WAIT
                   : (deadline->tv_sec - wall.tv_sec) * 1000000000LL + (deadline->tv_nsec - wall.tv_nsec);
        if (left > TRACER_LONGEST_WAIT)
                left = TRACER_LONGEST_WAIT;
        if (left < 0)
                left = 0;
        left += until.tv_nsec;
        until.tv_sec += left / 1000000000LL;
        until.tv_nsec = left % 1000000000LL;
        /* In glibc these are the same types under two names. */
        result = pthread_cond_clockwait((pthread_cond_t *)cond, (pthread_mutex_t *)mutex, CLOCK_MONOTONIC, &until);
        return result == 0 ? thrd_success : result == ETIMEDOUT ? thrd_timedout : thrd_error;
}

#define cnd_timedwait tracer_cnd_timedwait

#endif
#endif
