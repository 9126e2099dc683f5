// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#define _GNU_SOURCE
#include "CLinuxBlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/ioprio.h>
#include <linux/loop.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <unistd.h>

const int clb_O_DIRECT = O_DIRECT;
const int clb_O_PATH = O_PATH;
const int clb_O_TMPFILE = O_TMPFILE;
const int clb_SEEK_DATA = SEEK_DATA;
const int clb_SEEK_HOLE = SEEK_HOLE;

static int argument_count;
static char *const *arguments_of_main;

// glibc calls constructors with the arguments of main (elf/dl-init.c, csu/libc-start.c).
__attribute__((constructor)) static void keep_arguments(int count, char **words) {
    argument_count = count;
    arguments_of_main = words;
}

int clb_arguments(char *const **arguments) {
    *arguments = arguments_of_main;
    return argument_count;
}

int clb_open(const char *path, int flags, mode_t mode) { return open(path, flags, mode); }

int clb_open_beneath(int directory, const char *path, int flags) {
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

int clb_set_nice(int value) { return setpriority(PRIO_PROCESS, 0, value); }

int clb_set_io_priority(int class, int level) {
    return (int)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(class, level));
}

int clb_punch_hole(int fd, int64_t offset, int64_t length) {
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

int clb_zero_range(int fd, int64_t offset, int64_t length) {
    return fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, length);
}

int clb_get_size(int fd, uint64_t *bytes) { return ioctl(fd, BLKGETSIZE64, bytes); }

int clb_get_logical_sector_size(int fd, int *bytes) { return ioctl(fd, BLKSSZGET, bytes); }

int clb_get_read_only(int fd, int *read_only) { return ioctl(fd, BLKROGET, read_only); }

int clb_zero_out(int fd, uint64_t offset, uint64_t length) {
    uint64_t range[2] = {offset, length};
    return ioctl(fd, BLKZEROOUT, range);
}

int clb_discard(int fd, uint64_t offset, uint64_t length) {
    uint64_t range[2] = {offset, length};
    return ioctl(fd, BLKDISCARD, range);
}

bool clb_is_mapped_by_blocks(int fd) {
    struct statfs status;
    int flags = 0;
    return fstatfs(fd, &status) == 0 && status.f_type == 0xEF53 &&
           ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && !(flags & FS_EXTENT_FL);
}

int clb_get_file_system_type(int fd, int64_t *type) {
    struct statfs answer;
    int result = fstatfs(fd, &answer);
    if (result == 0) *type = answer.f_type;
    return result;
}

int clb_write_back(int fd) {
    return sync_file_range(fd, 0, 0,
                           SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
}

int clb_flush_buffers(int fd) { return ioctl(fd, BLKFLSBUF, 0); }

int clb_reread_partitions(int fd) { return ioctl(fd, BLKRRPART, 0); }

int clb_get_loop_backing(int fd, struct clb_loop_backing *backing) {
    struct loop_info64 info;
    memset(&info, 0, sizeof info);
    int result = ioctl(fd, LOOP_GET_STATUS64, &info);
    backing->device = info.lo_device;
    backing->inode = info.lo_inode;
    backing->block_device = info.lo_rdevice;
    backing->offset = info.lo_offset;
    backing->size_limit = info.lo_sizelimit;
    return result;
}

// Linux 6.1 added two fields to struct statx. The C library's header may be older, but the layout
// (statx(2)) is fixed.
#define CLB_STATX_DIOALIGN 0x00002000U
#define CLB_STX_DIO_MEM_ALIGN 0x98
#define CLB_STX_DIO_OFFSET_ALIGN 0x9c

int clb_get_direct_io_alignment(int fd, struct clb_direct_io_alignment *alignment) {
    _Alignas(8) unsigned char answer[256];
    memset(answer, 0, sizeof answer);
    memset(alignment, 0, sizeof *alignment);
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, CLB_STATX_DIOALIGN, answer) != 0) return -1;
    uint32_t mask;
    memcpy(&mask, answer, sizeof mask);
    alignment->known = (mask & CLB_STATX_DIOALIGN) != 0;
    if (alignment->known) {
        memcpy(&alignment->memory, answer + CLB_STX_DIO_MEM_ALIGN, sizeof alignment->memory);
        memcpy(&alignment->offset, answer + CLB_STX_DIO_OFFSET_ALIGN, sizeof alignment->offset);
    }
    return 0;
}

bool clb_get_birth_time(int fd, const char *path, int64_t *nanoseconds) {
    struct statx answer;
    memset(&answer, 0, sizeof answer);
    if (statx(path ? AT_FDCWD : fd, path ? path : "", path ? 0 : AT_EMPTY_PATH, STATX_BTIME, &answer) != 0)
        return false;
    *nanoseconds = answer.stx_btime.tv_sec * 1000000000LL + answer.stx_btime.tv_nsec;
    return (answer.stx_mask & STATX_BTIME) != 0;
}

bool clb_is_fat(const char *path) {
    struct statfs status;
    return statfs(path, &status) == 0 && status.f_type == MSDOS_SUPER_MAGIC;
}

int clb_lease(int fd) {
    // Until F_UNLCK, a program that opens the file waits, and the kernel sends SIGURG, whose default
    // action is to ignore it.
    if (fcntl(fd, F_SETSIG, SIGURG) != 0 || fcntl(fd, F_SETLEASE, F_WRLCK) != 0) return -1;
    return fcntl(fd, F_SETLEASE, F_UNLCK);
}

int clb_lock(int fd, bool exclusive) {
    struct flock lock = {.l_type = exclusive ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &lock);
}

int clb_create_watch(void) {
    return fanotify_init(
        FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC);
}

int clb_watch_writes(int watch, int file) {
    return fanotify_mark(watch, FAN_MARK_ADD, FAN_MODIFY, file, NULL);
}

int clb_watch_writers(int watch, int file) {
    return fanotify_mark(watch, FAN_MARK_ADD, FAN_CLOSE_WRITE, file, NULL);
}

// cachestat(2) got its number with Linux 6.5, the same on every architecture.
#define CLB_SYS_CACHESTAT 451

int clb_cached_pages(int fd, uint64_t offset, uint64_t length, uint64_t *pages) {
    struct {
        uint64_t offset, length;
    } range = {offset, length};
    struct {
        uint64_t cached, dirty, writeback, evicted, recently_evicted;
    } answer = {0};
    int result = (int)syscall(CLB_SYS_CACHESTAT, fd, &range, &answer, 0);
    *pages = answer.cached;
    return result;
}

void clb_limit_arenas(int count) { mallopt(M_ARENA_MAX, count); }

void clb_forbid_core_dumps(void) {
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    prctl(PR_SET_DUMPABLE, 0);
}

const short clb_POLLRDHUP = POLLRDHUP;
const short clb_POSIX_SPAWN_SETSID = POSIX_SPAWN_SETSID;

int clb_spawn_close_from(void *actions, int from) {
    return posix_spawn_file_actions_addclosefrom_np(actions, from);
}

int clb_socket_pair(int ends[2]) {
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
}

int clb_memory_file(const char *name) { return memfd_create(name, MFD_CLOEXEC); }

int clb_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC); }

int clb_unix_socket(void) { return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); }

// The first byte of an abstract name is NUL; it is as long as the address says.
static socklen_t abstract_address(const char *name, struct sockaddr_un *address) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    size_t length = strnlen(name, sizeof address->sun_path - 1);
    memcpy(address->sun_path + 1, name, length);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
}

int clb_bind_abstract(int socket, const char *name) {
    struct sockaddr_un address;
    socklen_t length = abstract_address(name, &address);
    return bind(socket, (struct sockaddr *)&address, length);
}

int clb_connect_abstract(int socket, const char *name) {
    struct sockaddr_un address;
    socklen_t length = abstract_address(name, &address);
    return connect(socket, (struct sockaddr *)&address, length);
}

static int unix_address(const char *path, struct sockaddr_un *address) {
    size_t length = strlen(path);
    if (length >= sizeof address->sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    memcpy(address->sun_path, path, length + 1);
    return 0;
}

int clb_bind_unix(int socket, const char *path) {
    struct sockaddr_un address;
    if (unix_address(path, &address) < 0) return -1;
    return bind(socket, (struct sockaddr *)&address, sizeof address);
}

int clb_connect_unix(int socket, const char *path) {
    struct sockaddr_un address;
    if (unix_address(path, &address) < 0) return -1;
    return connect(socket, (struct sockaddr *)&address, sizeof address);
}

int clb_accept(int socket) { return accept4(socket, NULL, NULL, SOCK_CLOEXEC); }

int clb_get_peer_user(int socket, uid_t *user) {
    struct ucred peer;
    socklen_t size = sizeof peer;
    int result = getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size);
    if (result == 0) *user = peer.uid;
    return result;
}

ssize_t clb_send_descriptors(int socket, int first, int second) {
    int descriptors[2] = {first, second};
    char byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof descriptors)];
    memset(control, 0, sizeof control);
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof descriptors);
    memcpy(CMSG_DATA(header), descriptors, sizeof descriptors);
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

ssize_t clb_receive_descriptors(int socket, int descriptors[2]) {
    char byte;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    // The kernel closes further descriptors.
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
    struct msghdr message = {
        .msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    descriptors[0] = descriptors[1] = -1;
    ssize_t count = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    struct cmsghdr *header = count > 0 ? CMSG_FIRSTHDR(&message) : NULL;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(descriptors, CMSG_DATA(header),
            header->cmsg_len >= CMSG_LEN(2 * sizeof(int)) ? 2 * sizeof(int) : sizeof(int));
    return count;
}

int clb_duplicate(int file, int number) { return dup3(file, number, O_CLOEXEC); }

char *const *clb_environment(void) { return environ; }

unsigned int clb_major(uint64_t device) { return major(device); }
unsigned int clb_minor(uint64_t device) { return minor(device); }
uint64_t clb_makedev(unsigned int major_number, unsigned int minor_number) {
    return makedev(major_number, minor_number);
}
