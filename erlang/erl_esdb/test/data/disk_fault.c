/* A disk that fails, between a process and libc: preloaded, it acts on the files below one folder.
 *
 *   ESDB_FAULT_DIR      that folder, absolute
 *   ESDB_FAULT_CONTROL  a file of 128 bytes, mapped: what to do, and how often it was done
 *   ESDB_FAULT_JOURNAL  optional: a folder for what is to be undone when the power fails
 *
 * The control file, in the byte order of the machine: the mode and the delay in microseconds, 32 bits each,
 * then counters of 64 bits, one for each bit of the mode, of calls that it changed; then, 64 bits, how many calls
 * that change the folder are still made: before the next one the process is killed. 0 is without end.
 *
 * Losing what was not synced: before a write, the bytes that it overwrites and the size of the file go to
 * ESDB_FAULT_JOURNAL/<inode>; a sync empties that file. Whoever finds such files after a kill -9 undoes them
 * from the last record to the first, and the files are as a power failure may leave them. Records: offset,
 * size of the file before, bytes kept, 64 bits each, and the bytes. Names (rename, unlink) are not undone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITE_ENOSPC, WRITE_EIO, SYNC_EIO, WRITE_SLOW, SYNC_SLOW, WRITE_SHORT, READ_EIO, FAULTS };

struct control {
    volatile uint32_t mode, delay_us;
    volatile uint64_t acted[FAULTS];
    volatile int64_t calls;
};

#define FDS 65536
#define LOCKS 64
#define KEPT_MAX (64 << 20)

static struct control *control;
static const char *dir, *journal;
static size_t dir_length;
/* 1: below the folder; 2: every write is synced by itself */
static unsigned char tracked[FDS];
static pthread_mutex_t locks[LOCKS];

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_pwritev)(int, const struct iovec *, int, off_t);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static ssize_t (*real_readv)(int, const struct iovec *, int);
static ssize_t (*real_preadv)(int, const struct iovec *, int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_mkdir)(const char *, mode_t);

__attribute__((constructor)) static void begin(void)
{
    real_open = dlsym(RTLD_NEXT, "open");
    real_openat = dlsym(RTLD_NEXT, "openat");
    real_close = dlsym(RTLD_NEXT, "close");
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_pwritev = dlsym(RTLD_NEXT, "pwritev64");
    real_read = dlsym(RTLD_NEXT, "read");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_readv = dlsym(RTLD_NEXT, "readv");
    real_preadv = dlsym(RTLD_NEXT, "preadv64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_mkdir = dlsym(RTLD_NEXT, "mkdir");
    for (int i = 0; i < LOCKS; i++)
        pthread_mutex_init(&locks[i], NULL);

    const char *path = getenv("ESDB_FAULT_CONTROL");
    dir = getenv("ESDB_FAULT_DIR");
    journal = getenv("ESDB_FAULT_JOURNAL");
    if (!path || !dir)
        return;
    dir_length = strlen(dir);
    int fd = real_open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *map = mmap(NULL, 128, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    real_close(fd);
    if (map != MAP_FAILED)
        control = map;
}

static int is_below(const char *path)
{
    return control && strncmp(path, dir, dir_length) == 0 && path[dir_length] == '/';
}

static int is_tracked(int fd)
{
    return control && fd >= 0 && fd < FDS && tracked[fd];
}

/* Whether this is to fail or to be slow now; then it is counted. */
static int acts(int fault)
{
    if (!(control->mode & (1u << fault)))
        return 0;
    __sync_fetch_and_add(&control->acted[fault], 1);
    return 1;
}

/* A call that changes the folder is about to be made. The last one was: nothing more happens. */
static void changes(void)
{
    if (control->calls > 0 && __sync_sub_and_fetch(&control->calls, 1) == 0) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
}

/* The fault itself is to be slow: nobody waits here for something to happen. */
static void slow(int fault)
{
    if (acts(fault))
        usleep(control->delay_us);
}

/* ---- what is to be undone */

static void keep(int reader, uint64_t offset, uint64_t length)
{
    struct stat st;
    char path[4096];
    if (fstat(reader, &st) < 0 || !S_ISREG(st.st_mode))
        return;
    uint64_t size = (uint64_t)st.st_size;
    uint64_t kept = offset < size ? size - offset : 0;
    if (kept > length)
        kept = length;
    if (kept > KEPT_MAX)
        return;
    snprintf(path, sizeof path, "%s/%llu", journal, (unsigned long long)st.st_ino);
    int out = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (out < 0)
        return;
    char *record = malloc(24 + kept);
    if (record) {
        memcpy(record, &offset, 8);
        memcpy(record + 8, &size, 8);
        memcpy(record + 16, &kept, 8);
        if (kept == 0 || real_pread(reader, record + 24, kept, (off_t)offset) == (ssize_t)kept)
            if (real_write(out, record, 24 + kept) < 0)
                abort();
        free(record);
    }
    real_close(out);
}

static void keep_fd(int fd, int64_t offset, uint64_t length)
{
    char path[64];
    if (!journal || tracked[fd] == 2)
        return;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int reader = real_open(path, O_RDONLY | O_CLOEXEC);
    if (reader < 0)
        return;
    struct stat st;
    if (offset < 0) {
        int flags = fcntl(fd, F_GETFL);
        offset = lseek(fd, 0, SEEK_CUR);
        if (flags >= 0 && (flags & O_APPEND) && fstat(fd, &st) == 0)
            offset = st.st_size;
    }
    keep(reader, (uint64_t)offset, length);
    real_close(reader);
}

static void synced(int fd)
{
    struct stat st;
    char path[4096];
    if (!journal || fstat(fd, &st) < 0)
        return;
    snprintf(path, sizeof path, "%s/%llu", journal, (unsigned long long)st.st_ino);
    real_unlink(path);
}

static pthread_mutex_t *lock(int fd)
{
    struct stat st;
    pthread_mutex_t *mutex = &locks[fstat(fd, &st) == 0 ? st.st_ino % LOCKS : 0];
    pthread_mutex_lock(mutex);
    return mutex;
}

/* ---- files */

static int opened(int fd, int below, int flags)
{
    if (fd >= 0 && fd < FDS)
        tracked[fd] = below ? ((flags & (O_DSYNC | O_SYNC)) ? 2 : 1) : 0;
    return fd;
}

static void before_open(const char *path, int below, int flags)
{
    if (below && (flags & (O_CREAT | O_TRUNC)))
        changes();
    if (!below || !journal || !(flags & O_TRUNC))
        return;
    int reader = real_open(path, O_RDONLY | O_CLOEXEC);
    if (reader < 0)
        return;
    keep(reader, 0, KEPT_MAX);
    real_close(reader);
}

#define OPEN(name, signature, path, call)                                                          \
    int name signature                                                                             \
    {                                                                                              \
        mode_t mode = 0;                                                                           \
        if (flags & (O_CREAT | O_TMPFILE)) {                                                       \
            va_list arguments;                                                                     \
            va_start(arguments, flags);                                                            \
            mode = va_arg(arguments, mode_t);                                                      \
            va_end(arguments);                                                                     \
        }                                                                                          \
        int below = is_below(path);                                                                \
        before_open(path, below, flags);                                                           \
        return opened(call, below, flags);                                                         \
    }

OPEN(open, (const char *path, int flags, ...), path, real_open(path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), path, real_open(path, flags | O_LARGEFILE, mode))
OPEN(openat, (int at, const char *path, int flags, ...), path, real_openat(at, path, flags, mode))
OPEN(openat64, (int at, const char *path, int flags, ...), path,
     real_openat(at, path, flags | O_LARGEFILE, mode))

int close(int fd)
{
    if (fd >= 0 && fd < FDS)
        tracked[fd] = 0;
    return real_close(fd);
}

/* ---- writes */

/* 0: go on; -1: errno says why not; else so many bytes at most */
static ssize_t may_write(size_t length)
{
    changes();
    slow(WRITE_SLOW);
    if (acts(WRITE_ENOSPC)) {
        errno = ENOSPC;
        return -1;
    }
    if (acts(WRITE_EIO)) {
        errno = EIO;
        return -1;
    }
    if (length > 1 && acts(WRITE_SHORT))
        return (ssize_t)(length / 2);
    return 0;
}

static size_t total(const struct iovec *vector, int count)
{
    size_t sum = 0;
    for (int i = 0; i < count; i++)
        sum += vector[i].iov_len;
    return sum;
}

#define WRITE(fd, offset, length, whole, part)                                                     \
    do {                                                                                           \
        if (!is_tracked(fd))                                                                       \
            return whole;                                                                          \
        ssize_t some = may_write(length);                                                          \
        if (some < 0)                                                                              \
            return -1;                                                                             \
        pthread_mutex_t *mutex = lock(fd);                                                         \
        keep_fd(fd, offset, length);                                                               \
        ssize_t done = some > 0 ? part : whole;                                                    \
        int error = errno;                                                                         \
        if (tracked[fd] == 2 && done >= 0)                                                         \
            synced(fd);                                                                            \
        pthread_mutex_unlock(mutex);                                                               \
        errno = error;                                                                             \
        return done;                                                                               \
    } while (0)

#define FIRST(vector, some) \
    ((vector)[0].iov_len < (size_t)(some) ? (vector)[0].iov_len : (size_t)(some))

ssize_t write(int fd, const void *bytes, size_t length)
{
    WRITE(fd, -1, length, real_write(fd, bytes, length), real_write(fd, bytes, (size_t)some));
}

ssize_t writev(int fd, const struct iovec *vector, int count)
{
    WRITE(fd, -1, total(vector, count), real_writev(fd, vector, count),
          real_write(fd, vector[0].iov_base, FIRST(vector, some)));
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
    WRITE(fd, offset, length, real_pwrite(fd, bytes, length, offset),
          real_pwrite(fd, bytes, (size_t)some, offset));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset)
{
    return pwrite(fd, bytes, length, offset);
}

ssize_t pwritev(int fd, const struct iovec *vector, int count, off_t offset)
{
    WRITE(fd, offset, total(vector, count), real_pwritev(fd, vector, count, offset),
          real_pwrite(fd, vector[0].iov_base, FIRST(vector, some), offset));
}

ssize_t pwritev64(int fd, const struct iovec *vector, int count, off_t offset)
{
    return pwritev(fd, vector, count, offset);
}

/* ---- reads */

#define READ(fd, whole)                                                                            \
    do {                                                                                           \
        if (is_tracked(fd) && acts(READ_EIO)) {                                                    \
            errno = EIO;                                                                           \
            return -1;                                                                             \
        }                                                                                          \
        return whole;                                                                              \
    } while (0)

ssize_t read(int fd, void *bytes, size_t length)
{
    READ(fd, real_read(fd, bytes, length));
}

ssize_t readv(int fd, const struct iovec *vector, int count)
{
    READ(fd, real_readv(fd, vector, count));
}

ssize_t pread(int fd, void *bytes, size_t length, off_t offset)
{
    READ(fd, real_pread(fd, bytes, length, offset));
}

ssize_t pread64(int fd, void *bytes, size_t length, off_t offset)
{
    return pread(fd, bytes, length, offset);
}

ssize_t preadv(int fd, const struct iovec *vector, int count, off_t offset)
{
    READ(fd, real_preadv(fd, vector, count, offset));
}

ssize_t preadv64(int fd, const struct iovec *vector, int count, off_t offset)
{
    return preadv(fd, vector, count, offset);
}

/* ---- syncs */

static int sync_file(int fd, int (*real)(int))
{
    if (!is_tracked(fd))
        return real(fd);
    changes();
    slow(SYNC_SLOW);
    if (acts(SYNC_EIO)) {
        errno = EIO;
        return -1;
    }
    pthread_mutex_t *mutex = lock(fd);
    int done = real(fd);
    int error = errno;
    if (done == 0)
        synced(fd);
    pthread_mutex_unlock(mutex);
    errno = error;
    return done;
}

int fsync(int fd)
{
    return sync_file(fd, real_fsync);
}

int fdatasync(int fd)
{
    return sync_file(fd, real_fdatasync);
}

int ftruncate(int fd, off_t length)
{
    if (!is_tracked(fd))
        return real_ftruncate(fd, length);
    changes();
    pthread_mutex_t *mutex = lock(fd);
    keep_fd(fd, length, KEPT_MAX);
    int done = real_ftruncate(fd, length);
    int error = errno;
    pthread_mutex_unlock(mutex);
    errno = error;
    return done;
}

int ftruncate64(int fd, off_t length)
{
    return ftruncate(fd, length);
}

/* ---- names */

/* A file that is gone has nothing to be undone: its number goes to another one. */
static int without(const char *path, const char *from)
{
    struct stat st;
    char kept[4096];
    int known = journal && is_below(path) && lstat(path, &st) == 0 && S_ISREG(st.st_mode);
    int done = from ? real_rename(from, path) : real_unlink(path);
    int error = errno;
    if (done == 0 && known && st.st_nlink == 1) {
        snprintf(kept, sizeof kept, "%s/%llu", journal, (unsigned long long)st.st_ino);
        real_unlink(kept);
    }
    errno = error;
    return done;
}

int rename(const char *from, const char *to)
{
    if (is_below(to))
        changes();
    return without(to, from);
}

int unlink(const char *path)
{
    if (is_below(path))
        changes();
    return without(path, NULL);
}

int mkdir(const char *path, mode_t mode)
{
    if (is_below(path))
        changes();
    return real_mkdir(path, mode);
}
