// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// The parts of Linux that Swift cannot see through `import Glibc`: variadic calls, ioctls and constants
// that need _GNU_SOURCE. Most functions make the one system call that their comment names, and return its
// result (-1 with errno on failure).

#ifndef CLINUXBLOCK_H
#define CLINUXBLOCK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

extern const int clb_O_DIRECT;
extern const int clb_O_PATH;
extern const int clb_O_TMPFILE;
extern const int clb_SEEK_DATA;
extern const int clb_SEEK_HOLE;

/// The arguments of main, which the C library also passes to constructors; returns their number.
/// Swift's own CommandLine reads /proc/self/cmdline, which a chroot may lack.
int clb_arguments(char *const **arguments);

/// open(2)
int clb_open(const char *path, int flags, mode_t mode);
/// openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS
int clb_open_beneath(int directory, const char *path, int flags);
/// setpriority(2) of this thread
int clb_set_nice(int value);
/// ioprio_set(2) of this thread: 1 realtime, 2 best-effort, 3 idle; the level is 0 to 7
int clb_set_io_priority(int class, int level);
/// fallocate(2) with FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
int clb_punch_hole(int fd, int64_t offset, int64_t length);
/// fallocate(2) with FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE
int clb_zero_range(int fd, int64_t offset, int64_t length);

/// ioctl(2) BLKGETSIZE64: bytes
int clb_get_size(int fd, uint64_t *bytes);
/// ioctl(2) BLKSSZGET: bytes
int clb_get_logical_sector_size(int fd, int *bytes);
/// ioctl(2) BLKROGET
int clb_get_read_only(int fd, int *read_only);
/// ioctl(2) BLKZEROOUT: bytes, both multiples of the logical sector
int clb_zero_out(int fd, uint64_t offset, uint64_t length);
/// ioctl(2) BLKDISCARD: bytes, both multiples of the logical sector
int clb_discard(int fd, uint64_t offset, uint64_t length);
/// ioctl(2) BLKFLSBUF: write back and drop the device's page cache
int clb_flush_buffers(int fd);
/// sync_file_range(2): write back the page cache, without a flush of the device
int clb_write_back(int fd);
/// ioctl(2) BLKRRPART: read the partition table again
int clb_reread_partitions(int fd);

/// The backing file of a loop device, as LOOP_GET_STATUS64 reports it.
struct clb_loop_backing {
    uint64_t device;       // st_dev of the backing file's file system
    uint64_t inode;        // st_ino of the backing file
    uint64_t block_device; // st_rdev if the backing file is a block device, else 0
    uint64_t offset;       // bytes into the backing file
    uint64_t size_limit;   // bytes, 0 for up to the end
};
/// ioctl(2) LOOP_GET_STATUS64
int clb_get_loop_backing(int fd, struct clb_loop_backing *backing);

/// The alignment of direct I/O on a file, in bytes.
struct clb_direct_io_alignment {
    bool known;      // whether the kernel reports it (Linux 6.1 and later, not for all file systems)
    uint32_t memory; // 0 if direct I/O is not supported
    uint32_t offset; // of file offsets and lengths; 0 if direct I/O is not supported
};
/// statx(2) STATX_DIOALIGN
int clb_get_direct_io_alignment(int fd, struct clb_direct_io_alignment *alignment);

/// statx(2) STATX_BTIME of an open file, or of the path if it is not NULL, following links: nanoseconds
/// since 1970; false if the kernel or the file system has none
bool clb_get_birth_time(int fd, const char *path, int64_t *nanoseconds);

/// ioctl(2) with a pointer
typedef int clb_mapper_call(int control, unsigned long request, void *memory);
int clb_ioctl(int fd, unsigned long request, void *memory);
/// Where the answer starts in the memory of clb_ask_mapper: bytes
extern const size_t clb_mapper_answer_start;
/// ioctl(2) DM_TABLE_STATUS on /dev/mapper/control, for the table or the status of a device-mapper device
/// with this name, or with this number (st_rdev) if the name is NULL. It fills memory of size bytes, aligned
/// to 8, with a header and struct dm_target_spec of linux/dm-ioctl.h, as many as *targets, each followed by
/// text with a zero byte at its end; EMSGSIZE if the answer is longer.
int clb_ask_mapper(
    clb_mapper_call *call, int control, const char *name, uint64_t device, bool table, void *memory,
    uint32_t size, uint32_t *targets);
/// ioctl(2) DM_TARGET_MSG of a message of at most 63 bytes, in a process of its own, forked once. It then
/// writes the status of the device (its first target) and a newline to the empty file, or sends the message
/// undo if it cannot. If undo is NULL, it empties the file. It blocks all signals and has a session of its
/// own, so that it finishes even if this process is killed, and keeps the file open until then. The caller
/// may have many threads, since the process only makes system calls. ECANCELED if a signal ended it.
int clb_tell_mapper(
    clb_mapper_call *call, const char *control, const char *name, const char *message, const char *undo,
    int file);

/// fstatfs(2), f_type: the number of the file system in linux/magic.h
int clb_get_file_system_type(int fd, int64_t *type);
/// whether a file of ext2, ext3 or ext4 has no extents (ioctl_iflags(2) FS_EXTENT_FL)
bool clb_is_mapped_by_blocks(int fd);

/// statfs(2): whether a path is on a FAT file system
bool clb_is_fat(const char *path);
/// fcntl(2) F_SETLEASE with F_WRLCK, and at once with F_UNLCK: EAGAIN if another program or the
/// kernel has the file open
int clb_lease(int fd);
/// fcntl(2) F_OFD_SETLK on the whole file, exclusive (F_WRLCK) or shared (F_RDLCK)
int clb_lock(int fd, bool exclusive);

/// fanotify_init(2) FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_NONBLOCK | FAN_CLOEXEC
int clb_create_watch(void);
/// fanotify_mark(2) FAN_MODIFY of the file that is open as file
int clb_watch_writes(int watch, int file);
/// fanotify_mark(2) FAN_CLOSE_WRITE of the file that is open as file
int clb_watch_writers(int watch, int file);

/// cachestat(2): pages of the range in the page cache (Linux 6.5 and later, else ENOSYS)
int clb_cached_pages(int fd, uint64_t offset, uint64_t length, uint64_t *pages);

/// mallopt(3) M_ARENA_MAX
void clb_limit_arenas(int count);

/// setrlimit(2) RLIMIT_CORE and prctl(2) PR_SET_DUMPABLE, which holds where core dumps go to a
/// program (core(5))
void clb_forbid_core_dumps(void);

extern const short clb_POLLRDHUP;
extern const short clb_POSIX_SPAWN_SETSID;
/// posix_spawn_file_actions_addclosefrom_np of a posix_spawn_file_actions_t: close all descriptors from
/// a number on; returns an error number. (With spawn.h here its types would be this module's, not Glibc's.)
int clb_spawn_close_from(void *actions, int from);

/// socketpair(2) AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC
int clb_socket_pair(int ends[2]);
/// memfd_create(2) MFD_CLOEXEC
int clb_memory_file(const char *name);
/// pipe2(2) O_CLOEXEC
int clb_pipe(int ends[2]);
/// socket(2) AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC
int clb_unix_socket(void);
/// bind(2) to a name in the abstract namespace (unix(7)), of 107 bytes at most
int clb_bind_abstract(int socket, const char *name);
/// connect(2) to such a name
int clb_connect_abstract(int socket, const char *name);

// Binds a socket to a path, and connects one to that of a path; see unix(7).
int clb_bind_unix(int socket, const char *path);
int clb_connect_unix(int socket, const char *path);
/// accept4(2) SOCK_CLOEXEC
int clb_accept(int socket);
/// getsockopt(2) SO_PEERCRED: the user at the other end of a unix socket
int clb_get_peer_user(int socket, uid_t *user);
/// sendmsg(2) of one byte and two descriptors (SCM_RIGHTS)
ssize_t clb_send_descriptors(int socket, int first, int second);
/// recvmsg(2) of one byte and two descriptors, with MSG_CMSG_CLOEXEC: each -1 if the message lacks it
ssize_t clb_receive_descriptors(int socket, int descriptors[2]);

/// dup3(2) O_CLOEXEC
int clb_duplicate(int file, int number);
/// environ(7)
char *const *clb_environment(void);

/// A loop device whose backing file clb_ask_loops determines.
struct clb_loop_question {
    const char *node; // path of its device file
    uint64_t number;  // st_rdev of the node
    const char *path; // of its backing file in sysfs
};
/// The backing file of that loop device.
struct clb_loop_answer {
    bool by_kernel;   // `backing` is from LOOP_GET_STATUS64
    bool is_detached; // the device has no backing file any more
    bool by_path;     // device, inode and block_device are from stat(2) of the path
    uint64_t file_size; // with by_path: bytes
    struct clb_loop_backing backing;
};
/// fork(2), twice: queries loop devices in a process of its own, since the kernel queries the file system
/// of the backing file, which may not answer. Returns the end of a pipe that delivers one answer for each
/// device, in order.
int clb_ask_loops(const struct clb_loop_question *questions, size_t count);

/// fork(2), twice: starts a process, in a session of its own, that keeps the O_NONBLOCK descriptors of
/// block devices with these numbers (st_rdev) open. It ends after the caller has closed the returned
/// descriptor and the devices answer. The caller may have many threads, since the process only makes
/// system calls.
int clb_keep_open(const uint64_t *devices, size_t count);

/// open(2) in a process of its own, forked twice, which sends the descriptor. A signal can end a thread
/// that waits for that process, while open(2) may wait for a driver and ignore every signal. Returns -1 if
/// fork(2) or open(2) fails.
int clb_open_elsewhere(const char *path, int flags);

/// What a reader of clb_start_reader is asked for, in bytes.
struct clb_read_request {
    uint64_t offset; // on the device
    uint64_t length;
    uint64_t direct; // so many of them through the first descriptor, the others through the second
    uint64_t place;  // in the shared memory
};
struct clb_read_answer {
    uint64_t done; // bytes; less than the length at the end of the device and after an error
    int32_t error; // errno(3); 0 for none
};
/// fork(2), twice: starts a process that reads two descriptors above 2 into memory that it shares with the
/// caller. Returns a socket for requests, and for one answer to each. The process ends after the caller has
/// closed the socket, once its read is done. No signal ends a direct read; the caller can end meanwhile.
int clb_start_reader(int direct, int buffered, void *memory, size_t size);

/// The name in /proc/PID/comm of a process that clb_fork_orphan or clb_tell_mapper has made, until it takes
/// another one.
#define CLB_FORK_NAME "blkferry-fork"
/// fork(2), twice, so that init waits for the process: 0 in the new process, which blocks all signals and
/// has a session of its own; -1 on failure
int clb_fork_orphan(void);

/// faccessat2(2) AT_EACCESS: access(2) for the effective user and capabilities, as open(2) checks them
int clb_may_access(const char *path, int mode);
/// capget(2): the permitted capabilities of this thread, a bit for each number of capabilities(7)
uint64_t clb_get_capabilities(void);
/// capset(2) of this thread, and prctl(2) PR_CAP_AMBIENT_CLEAR_ALL; nothing is inheritable
int clb_set_capabilities(uint64_t permitted, uint64_t effective);
/// prctl(2) PR_CAPBSET_DROP of all capabilities but these: programs that this thread starts get no others
int clb_limit_capabilities(uint64_t kept);

/// The operations of the helper.
enum clb_helper_operation {
    clb_helper_flush,     // ioctl(2) BLKFLSBUF
    clb_helper_reread,    // ioctl(2) BLKRRPART
    clb_helper_table,     // clb_ask_mapper for a table, by the device's number
    clb_helper_processes, // readlink(2) of /proc/PID/ns/mnt and /proc/PID/fd/*, lstat(2)
};
/// fork(2), twice: starts a process that keeps CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH, and
/// makes these system calls for the holder of the returned socket. It ends when the socket is closed. The
/// caller must not have started other threads.
int clb_start_helper(void);
/// Makes the helper do clb_helper_flush or clb_helper_reread on a descriptor of this process.
int clb_help(int helper, enum clb_helper_operation operation, int fd);
/// clb_ask_mapper for a table
int clb_help_with_table(
    int helper, int control, uint64_t device, void *memory, uint32_t size, uint32_t *targets);
/// Returns the end of a socket that delivers for each process: its id, the link of its mount namespace and
/// for each descriptor with a path "w" if it is open for writing, else "r", and its link,
/// each with a zero byte at its end; then a zero byte.
int clb_help_with_processes(int helper);

unsigned int clb_major(uint64_t device);
unsigned int clb_minor(uint64_t device);
uint64_t clb_makedev(unsigned int major, unsigned int minor);

#endif
