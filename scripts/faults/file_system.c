/* A file system that is slow, that has a quota, or that has no locks: preloaded into a command, for the files below a folder.
 *
 * FAULT_FOLDER   the folder, as an absolute path without links
 * FAULT_SLOW     so many microseconds does each write and each synchronisation take
 * FAULT_QUOTA    so many bytes can be written, by all processes together, before writing fails with EDQUOT
 * FAULT_WRITTEN  a file of eight bytes, in which the processes count what they wrote
 * FAULT_LOCKS    the number of the error with which a lock is refused
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *folder;
static long slow;
static long long quota;
static long long *written;
static int no_locks;

__attribute__((constructor)) static void configure(void) {
    const char *value;
    folder = getenv("FAULT_FOLDER");
    if ((value = getenv("FAULT_SLOW"))) slow = atol(value);
    if ((value = getenv("FAULT_LOCKS"))) no_locks = atoi(value);
    if ((value = getenv("FAULT_QUOTA"))) {
        int file = open(getenv("FAULT_WRITTEN"), O_RDWR | O_CLOEXEC);
        quota = atoll(value);
        written = mmap(NULL, sizeof *written, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
        if (written == MAP_FAILED) abort();
    }
}

static int is_below(int descriptor) {
    char link[64], path[PATH_MAX];
    if (!folder) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    size_t prefix = strlen(folder);
    return strncmp(path, folder, prefix) == 0 && (path[prefix] == '/' || path[prefix] == 0);
}

/* How many of the bytes may be written; -1 where the quota is used up. */
static ssize_t granted(int descriptor, size_t size) {
    if (!is_below(descriptor)) return size;
    if (slow) usleep(slow);
    if (!written || !size) return size;
    long long room = quota - __sync_fetch_and_add(written, (long long)size);
    if (room >= (long long)size) return size;
    if (room > 0) return room;
    errno = EDQUOT;
    return -1;
}

ssize_t write(int descriptor, const void *bytes, size_t size) {
    ssize_t (*next)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    ssize_t room = granted(descriptor, size);
    return room < 0 ? -1 : next(descriptor, bytes, room);
}

ssize_t pwrite64(int descriptor, const void *bytes, size_t size, off64_t offset) {
    ssize_t (*next)(int, const void *, size_t, off64_t) = dlsym(RTLD_NEXT, "pwrite64");
    ssize_t room = granted(descriptor, size);
    return room < 0 ? -1 : next(descriptor, bytes, room, offset);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    ssize_t (*next)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    size_t size = 0;
    for (int part = 0; part < count; part++) size += parts[part].iov_len;
    ssize_t room = granted(descriptor, size);
    if (room < 0 || (size_t)room < size) { /* never a part, which would need other vectors */
        errno = EDQUOT;
        return -1;
    }
    return next(descriptor, parts, count);
}

static int synchronise(const char *name, int descriptor) {
    int (*next)(int) = dlsym(RTLD_NEXT, name);
    if (slow && is_below(descriptor)) usleep(slow);
    return next(descriptor);
}

int fsync(int descriptor) { return synchronise("fsync", descriptor); }

int fdatasync(int descriptor) { return synchronise("fdatasync", descriptor); }

int flock(int descriptor, int operation) {
    int (*next)(int, int) = dlsym(RTLD_NEXT, "flock");
    if (no_locks && is_below(descriptor)) {
        errno = no_locks;
        return -1;
    }
    return next(descriptor, operation);
}
