/* Lets the real-time clock go ahead by INSTAR_AHEAD_S seconds in every program into which this library is loaded.
 * The second build runs so, because two builds a second apart would hide that a build writes down the date. The system
 * calls are made directly: looking up the C library's own functions can allocate before the program is ready for it. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long ahead(void) {
    static long seconds = -1;
    if (seconds < 0) {
        const char *text = getenv("INSTAR_AHEAD_S");
        seconds = text ? strtol(text, NULL, 10) : 0;
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += ahead();
    }
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise)) {
        return -1;
    }
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise;
    if (clock_gettime(CLOCK_REALTIME, &precise)) {
        return (time_t)-1;
    }
    if (now) {
        *now = precise.tv_sec;
    }
    return precise.tv_sec;
}
