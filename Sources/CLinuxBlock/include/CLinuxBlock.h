// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// What Swift cannot see of Linux through `import Glibc`: variadic calls, ioctls and constants that
// need _GNU_SOURCE. No logic: each function is one system call, returns what it returns (-1 and
// errno on failure) and names it in its comment.

#ifndef CLINUXBLOCK_H
#define CLINUXBLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

extern const int clb_O_DIRECT;
extern const int clb_O_PATH;
extern const int clb_SEEK_DATA;
extern const int clb_SEEK_HOLE;

/// open(2)
int clb_open(const char *path, int flags, mode_t mode);
/// openat2(2) with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS
int clb_open_beneath(int directory, const char *path, int flags);
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

/// What a loop device stands on, as LOOP_GET_STATUS64 tells it.
struct clb_loop_backing {
    uint64_t device;       // st_dev of the backing file's file system
    uint64_t inode;        // st_ino of the backing file
    uint64_t block_device; // st_rdev when the backing file is a block device, else 0
    uint64_t offset;       // bytes into the backing file
    uint64_t size_limit;   // bytes, 0 for up to the end
};
/// ioctl(2) LOOP_GET_STATUS64
int clb_get_loop_backing(int fd, struct clb_loop_backing *backing);

/// What direct I/O on a file must be aligned to, bytes.
struct clb_direct_io_alignment {
    bool known;      // the kernel answered at all (Linux 6.1 and later, file system permitting)
    uint32_t memory; // 0 where direct I/O is not supported
    uint32_t offset; // of file offsets and lengths; 0 where direct I/O is not supported
};
/// statx(2) STATX_DIOALIGN
int clb_get_direct_io_alignment(int fd, struct clb_direct_io_alignment *alignment);

/// Where the table starts in the memory of clb_get_mapper_table: bytes
extern const size_t clb_mapper_table_start;
/// ioctl(2) DM_TABLE_STATUS with DM_STATUS_TABLE_FLAG on /dev/mapper/control, of the device with
/// this number (st_rdev): fills memory of size bytes, aligned to 8, with a header and struct
/// dm_target_spec of linux/dm-ioctl.h, as many as *targets, each followed by text with a zero byte at
/// its end; EMSGSIZE where that is more
int clb_get_mapper_table(int control, uint64_t device, void *memory, uint32_t size, uint32_t *targets);

/// fcntl(2) F_OFD_SETLK on the whole file, exclusive (F_WRLCK) or shared (F_RDLCK)
int clb_lock(int fd, bool exclusive);

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
/// accept4(2) SOCK_CLOEXEC
int clb_accept(int socket);
/// getsockopt(2) SO_PEERCRED: the user at the other end of a unix socket
int clb_get_peer_user(int socket, uid_t *user);
/// sendmsg(2) of one byte and two descriptors (SCM_RIGHTS)
ssize_t clb_send_descriptors(int socket, int first, int second);
/// recvmsg(2) of one byte and two descriptors, with MSG_CMSG_CLOEXEC: both -1 where they did not
/// come
ssize_t clb_receive_descriptors(int socket, int descriptors[2]);

/// dup3(2) O_CLOEXEC
int clb_duplicate(int file, int number);
/// environ(7)
char *const *clb_environment(void);

unsigned int clb_major(uint64_t device);
unsigned int clb_minor(uint64_t device);
uint64_t clb_makedev(unsigned int major, unsigned int minor);

#endif
