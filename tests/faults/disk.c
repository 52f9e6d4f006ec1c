/* A disk that fails when it is told to: preloaded into the daemon by tests/faults/disk.py.
 *
 * The file named by DISK_FAULTS holds one rule a line, read anew at each call:
 *     NUMBER CALL PATTERN FROM TO ACTION VALUE
 * The FROM-th to TO-th call of CALL on a path that PATTERN (fnmatch) describes meets ACTION:
 *     errno N  it fails so and does nothing
 *     late N   it is done, and reported to have failed so
 *     short N  a write takes N bytes at most
 *     wait N   it is done N milliseconds later
 *     hang 0   it waits as long as the rule stands in the file
 * For write and fsync the path is the open file's, for create (an open that may make a file), link, rename, mkdir and
 * unlink the name as it was given. Calls are counted for each rule by its NUMBER. Each hit is appended to the file's namesake with ".hits".
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { RULES = 4096, TEXT = 8192 };
static int counts[RULES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct rule {
    int number, from, to, value;
    char call[16], pattern[512], action[16];
};

/* Find the rule that this call meets; `again` leaves the count as it is. */
static int met(const char *call, const char *path, int again, struct rule *found)
{
    const char *file = getenv("DISK_FAULTS");
    char text[TEXT], hits[PATH_MAX], line[PATH_MAX + 64], *rest = text, *next;
    int fd, hit = 0, length;
    ssize_t size;

    if (!file || (fd = syscall(SYS_openat, AT_FDCWD, file, O_RDONLY | O_CLOEXEC)) < 0)
        return 0;
    size = syscall(SYS_read, fd, text, TEXT - 1);
    syscall(SYS_close, fd);
    text[size > 0 ? size : 0] = 0;
    pthread_mutex_lock(&lock);
    while (!hit && (next = strsep(&rest, "\n"))) {
        struct rule r;
        if (sscanf(next, "%d %15s %511s %d %d %15s %d", &r.number, r.call, r.pattern, &r.from, &r.to, r.action,
                   &r.value) != 7 || r.number < 0 || r.number >= RULES)
            continue;
        if (strcmp(r.call, call) || fnmatch(r.pattern, path, 0))
            continue;
        if (!again)
            counts[r.number]++;
        hit = counts[r.number] >= r.from && counts[r.number] <= r.to;
        if (hit)
            *found = r;
    }
    pthread_mutex_unlock(&lock);
    if (hit && !again) {
        snprintf(hits, sizeof hits, "%s.hits", file);
        length = snprintf(line, sizeof line, "%d %s %s\n", found->number, call, path);
        if ((fd = syscall(SYS_openat, AT_FDCWD, hits, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)) >= 0) {
            syscall(SYS_write, fd, line, length);
            syscall(SYS_close, fd);
        }
    }
    return hit;
}

/* Let the fault happen. Returns 1 when the call is to fail instead of being done, 2 when after it. */
static int fails(const char *call, const char *path, struct rule *r)
{
    struct timespec pause = {0, 20000000};
    r->action[0] = 0;
    if (!met(call, path, 0, r))
        return 0;
    if (!strcmp(r->action, "hang")) {
        struct rule other;
        while (met(call, path, 1, &other))
            nanosleep(&pause, NULL);
        return 0;
    }
    if (!strcmp(r->action, "wait")) {
        pause.tv_sec = r->value / 1000;
        pause.tv_nsec = r->value % 1000 * 1000000L;
        nanosleep(&pause, NULL);
        return 0;
    }
    errno = r->value;
    return !strcmp(r->action, "errno") ? 1 : !strcmp(r->action, "late") ? 2 : 0;
}

static const char *name_of(int fd, char *path)
{
    char link[64];
    ssize_t size;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, PATH_MAX - 1);
    path[size > 0 ? size : 0] = 0;
    return path;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)

#define OUTCOME(call, path, expression)                \
    struct rule r;                                     \
    int how = fails(call, path, &r);                   \
    if (how == 1)                                      \
        return -1;                                     \
    int got = expression;                              \
    if (how == 2) {                                    \
        errno = r.value;                               \
        return -1;                                     \
    }                                                  \
    return got;

ssize_t write(int fd, const void *data, size_t size)
{
    char path[PATH_MAX];
    struct rule r;
    REAL(ssize_t, "write", int, const void *, size_t);
    if (fails("write", name_of(fd, path), &r) == 1)
        return -1;
    if (!strcmp(r.action, "short") && size > (size_t)r.value)
        size = r.value;
    return real(fd, data, size);
}

int fsync(int fd)
{
    char path[PATH_MAX];
    REAL(int, "fsync", int);
    OUTCOME("fsync", name_of(fd, path), real(fd))
}

int linkat(int from, const char *old, int to, const char *new, int flags)
{
    REAL(int, "linkat", int, const char *, int, const char *, int);
    OUTCOME("link", new, real(from, old, to, new, flags))
}

int renameat(int from, const char *old, int to, const char *new)
{
    REAL(int, "renameat", int, const char *, int, const char *);
    OUTCOME("rename", new, real(from, old, to, new))
}

int mkdirat(int at, const char *path, mode_t mode)
{
    REAL(int, "mkdirat", int, const char *, mode_t);
    OUTCOME("mkdir", path, real(at, path, mode))
}

#define OPENAT(name)                                                                    \
    int name(int at, const char *path, int flags, ...)                                  \
    {                                                                                   \
        va_list more;                                                                   \
        struct rule r;                                                                  \
        mode_t mode = 0;                                                                \
        REAL(int, #name, int, const char *, int, ...);                                  \
        if (flags & O_CREAT) {                                            \
            va_start(more, flags);                                                      \
            mode = va_arg(more, mode_t);                                                \
            va_end(more);                                                               \
            if (fails("create", path, &r) == 1)                                         \
                return -1;                                                              \
        }                                                                               \
        return real(at, path, flags, mode);                                             \
    }

OPENAT(openat)
OPENAT(openat64)

int unlinkat(int at, const char *path, int flags)
{
    REAL(int, "unlinkat", int, const char *, int);
    OUTCOME("unlink", path, real(at, path, flags))
}
