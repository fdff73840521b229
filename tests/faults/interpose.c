/* Stands between a program and its files, to be preloaded (LD_PRELOAD): counts every operation that
 * changes what a disk holds below one folder, and can end the program at the n-th, refuse room from
 * the n-th on, or write all of them to a trace. SQLite and Python both go through it.
 *
 * In: faults_arm(...) and the other faults_ functions, called by the program itself. Out: the count,
 * the trace (see Trace in tests/helpers/faults.py for its format).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum how { BEFORE = 1, AFTER = 2, TORN = 3 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static size_t folder_length;
static long count, die_at, full_at;
static int die_how, trace = -1;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t really_write(int descriptor, const void *data, size_t size) {
    REAL(write);
    return real(descriptor, data, size);
}

/* From now on operations below `below` count. They end the program at the `at`-th (0: never), as
 * `how` says, and are written to the descriptor `to` (-1: nowhere). */
void faults_arm(const char *below, long at, int how, int to) {
    pthread_mutex_lock(&lock);
    snprintf(folder, sizeof folder, "%s", below);
    folder_length = strlen(folder);
    count = full_at = 0;
    die_at = at;
    die_how = how;
    trace = to;
    pthread_mutex_unlock(&lock);
}

void faults_disarm(void) { faults_arm("", 0, 0, -1); }

long faults_count(void) { return count; }

/* From the `at`-th counted operation on there is no room on the disk (0: there is). */
void faults_full(long at) {
    pthread_mutex_lock(&lock);
    full_at = at;
    pthread_mutex_unlock(&lock);
}

/* ---- which operations count ------------------------------------------------------------------ */

static int is_below(const char *path) {
    size_t length = strlen(path);
    /* SQLite's shared memory is a file that no disk need ever hold. */
    int shared = length > 4 && strcmp(path + length - 4, "-shm") == 0;
    return folder_length && !shared && strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static int path_of(int descriptor, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return is_below(path);
}

/* The absolute path of one given relative to the descriptor `at`. */
static int full_path(int at, const char *given, char *path) {
    char base[PATH_MAX] = "";
    if (given[0] != '/') {
        if (at == AT_FDCWD) {
            if (!getcwd(base, sizeof base)) base[0] = 0;
        } else {
            path_of(at, base);
        }
    }
    if (snprintf(path, PATH_MAX, "%s%s%s", base, base[0] ? "/" : "", given) >= PATH_MAX) path[0] = 0;
    return is_below(path);
}

static uint64_t inode_of(int descriptor) {
    struct stat status;
    return fstat(descriptor, &status) ? 0 : status.st_ino;
}

static uint64_t inode_at(const char *path) {
    struct stat status;
    return lstat(path, &status) ? 0 : status.st_ino;
}

/* ---- what happens at one --------------------------------------------------------------------- */

static void end_here(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Count one operation; 1 if there is no room for it. The lock is held until `leave`. */
static int enter(int takes_room) {
    pthread_mutex_lock(&lock);
    count++;
    if (count == die_at && die_how == BEFORE) end_here();
    return takes_room && full_at && count >= full_at;
}

static void leave(void) {
    int error = errno;
    if (count == die_at) end_here();
    pthread_mutex_unlock(&lock);
    errno = error;
}

static void note(char kind, uint64_t inode, uint64_t offset, const char *path, const char *other,
                 const void *data, uint32_t size) {
    if (trace < 0) return;
    int error = errno;
    struct __attribute__((packed)) {
        char kind;
        uint64_t number, inode, offset;
        uint32_t path, other, size;
    } head = {kind, count, inode, offset, strlen(path), strlen(other), size};
    really_write(trace, &head, sizeof head);
    really_write(trace, path, head.path);
    really_write(trace, other, head.other);
    if (size) really_write(trace, data, size);
    errno = error;
}

/* What the program told the outside just now goes into the trace, in its place. */
void faults_tell(const char *text) {
    pthread_mutex_lock(&lock);
    note('!', 0, 0, "", "", text, strlen(text));
    pthread_mutex_unlock(&lock);
}

/* ---- writing ----------------------------------------------------------------------------------- */

static ssize_t refuse_room(void) {
    errno = ENOSPC;
    leave();
    return -1;
}

#define WRITE(size, put, put_half) \
    char path[PATH_MAX]; \
    if (!path_of(descriptor, path)) return put; \
    if (enter(1)) return refuse_room(); \
    if (count == die_at && die_how == TORN) { put_half; end_here(); } \
    uint64_t at = place(descriptor, offset); \
    ssize_t written = put; \
    if (written > 0) note('w', inode_of(descriptor), at, path, "", data, written); \
    leave(); \
    return written

/* Where a write will go: at `offset`, or for -1 where the descriptor stands. */
static uint64_t place(int descriptor, off_t offset) {
    struct stat status;
    if (offset >= 0) return offset;
    if ((fcntl(descriptor, F_GETFL) & O_APPEND) && fstat(descriptor, &status) == 0)
        return status.st_size;
    return lseek(descriptor, 0, SEEK_CUR);
}

ssize_t write(int descriptor, const void *data, size_t size) {
    off_t offset = -1;
    WRITE(size, really_write(descriptor, data, size), really_write(descriptor, data, size / 2));
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    REAL(pwrite);
    WRITE(size, real(descriptor, data, size, offset), real(descriptor, data, size / 2, offset));
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off_t offset) {
    REAL(pwrite64);
    WRITE(size, real(descriptor, data, size, offset), real(descriptor, data, size / 2, offset));
}

/* Nothing here uses them; should that change, it must not go unseen. */
ssize_t writev(int descriptor, const struct iovec *parts, int number) {
    REAL(writev);
    char path[PATH_MAX];
    if (path_of(descriptor, path)) { errno = ENOSYS; return -1; }
    return real(descriptor, parts, number);
}

ssize_t pwritev(int descriptor, const struct iovec *parts, int number, off_t offset) {
    REAL(pwritev);
    char path[PATH_MAX];
    if (path_of(descriptor, path)) { errno = ENOSYS; return -1; }
    return real(descriptor, parts, number, offset);
}

#define RESIZE(name) \
int name(int descriptor, off_t size) { \
    REAL(name); \
    char path[PATH_MAX]; \
    if (!path_of(descriptor, path)) return real(descriptor, size); \
    enter(0); \
    int result = real(descriptor, size); \
    if (result == 0) note('t', inode_of(descriptor), size, path, "", "", 0); \
    leave(); \
    return result; \
}
RESIZE(ftruncate)
RESIZE(ftruncate64)

#define RESERVE(name) \
int name(int descriptor, off_t offset, off_t size) { \
    REAL(name); \
    char path[PATH_MAX]; \
    if (!path_of(descriptor, path)) return real(descriptor, offset, size); \
    if (enter(1)) { leave(); return ENOSPC; } \
    int result = real(descriptor, offset, size); \
    leave(); \
    return result; \
}
RESERVE(posix_fallocate)
RESERVE(posix_fallocate64)

#define SYNC(name) \
int name(int descriptor) { \
    REAL(name); \
    char path[PATH_MAX]; \
    if (!path_of(descriptor, path)) return real(descriptor); \
    enter(0); \
    int result = real(descriptor); \
    if (result == 0) note('s', inode_of(descriptor), 0, path, "", "", 0); \
    leave(); \
    return result; \
}
SYNC(fsync)
SYNC(fdatasync)

/* ---- names ------------------------------------------------------------------------------------- */

#define OPEN(name, at, arguments, call) \
int name arguments { \
    REAL(name); \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list list; \
        va_start(list, flags); \
        mode = va_arg(list, mode_t); \
        va_end(list); \
    } \
    char path[PATH_MAX]; \
    struct stat status; \
    if (!(flags & (O_CREAT | O_TRUNC)) || !full_path(at, given, path)) return call; \
    int there = lstat(path, &status) == 0; \
    if (there && !(flags & O_TRUNC && status.st_size)) return call; \
    if (enter(!there)) return refuse_room(); \
    int descriptor = call; \
    if (descriptor >= 0) \
        note(there ? 't' : 'c', inode_of(descriptor), 0, path, "", "", 0); \
    leave(); \
    return descriptor; \
}
OPEN(open, AT_FDCWD, (const char *given, int flags, ...), real(given, flags, mode))
OPEN(open64, AT_FDCWD, (const char *given, int flags, ...), real(given, flags, mode))
OPEN(openat, at, (int at, const char *given, int flags, ...), real(at, given, flags, mode))
OPEN(openat64, at, (int at, const char *given, int flags, ...), real(at, given, flags, mode))

#define MOVE(name, kind, room, from_at, to_at, arguments, call) \
int name arguments { \
    REAL(name); \
    char path[PATH_MAX], other[PATH_MAX]; \
    int below = full_path(from_at, from, path) | full_path(to_at, to, other); \
    if (!below) return call; \
    if (enter(room)) return refuse_room(); \
    uint64_t inode = inode_at(path); \
    int result = call; \
    if (result == 0) note(kind, inode, 0, path, other, "", 0); \
    leave(); \
    return result; \
}
MOVE(rename, 'r', 0, AT_FDCWD, AT_FDCWD, (const char *from, const char *to), real(from, to))
MOVE(renameat, 'r', 0, at, to_at, (int at, const char *from, int to_at, const char *to),
     real(at, from, to_at, to))
MOVE(link, 'l', 1, AT_FDCWD, AT_FDCWD, (const char *from, const char *to), real(from, to))
MOVE(linkat, 'l', 1, at, to_at, (int at, const char *from, int to_at, const char *to, int flags),
     real(at, from, to_at, to, flags))

#define NAME(name, kind, room, at, arguments, call) \
int name arguments { \
    REAL(name); \
    char path[PATH_MAX]; \
    if (!full_path(at, given, path)) return call; \
    if (enter(room)) return refuse_room(); \
    uint64_t inode = inode_at(path); \
    int result = call; \
    if (result == 0) note(kind, kind == 'm' ? inode_at(path) : inode, 0, path, "", "", 0); \
    leave(); \
    return result; \
}
NAME(unlink, 'u', 0, AT_FDCWD, (const char *given), real(given))
NAME(unlinkat, 'u', 0, at, (int at, const char *given, int flags), real(at, given, flags))
NAME(rmdir, 'u', 0, AT_FDCWD, (const char *given), real(given))
NAME(mkdir, 'm', 1, AT_FDCWD, (const char *given, mode_t mode), real(given, mode))
NAME(mkdirat, 'm', 1, at, (int at, const char *given, mode_t mode), real(at, given, mode))
