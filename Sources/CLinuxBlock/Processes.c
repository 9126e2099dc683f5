// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// Processes that wait in place of this one for a device that may not answer: no signal ends a thread that
// waits for such a device, nor its process. The process that forks them may have many threads, so they
// only make system calls.

#define _GNU_SOURCE
#include "CLinuxBlock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int clb_fork_orphan(void) {
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_NAME, CLB_FORK_NAME);
        pid_t orphan = fork();
        if (orphan != 0) _exit(orphan < 0);
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, NULL);
        setsid();
        return 0;
    }
    if (child < 0) return -1;
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return status == 0 ? 1 : -1;
}

static bool is_kept(int fd, const uint64_t *devices, size_t count) {
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISBLK(status.st_mode)) return false;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !(flags & O_NONBLOCK)) return false;
    for (size_t index = 0; index < count; index++) {
        if (devices[index] == status.st_rdev) return true;
    }
    return false;
}

static void keep_open(const uint64_t *devices, size_t count, int end) {
    struct rlimit limit = {.rlim_cur = 1024};
    getrlimit(RLIMIT_NOFILE, &limit);
    int most = limit.rlim_cur < 65536 ? (int)limit.rlim_cur : 65536;
    int last = -1;
    for (int fd = 0; fd < most; fd++) {
        if (fd == end) continue;
        if (is_kept(fd, devices, count)) last = fd;
        else close(fd);
    }
    close_range((unsigned)most, ~0U, 0);
    prctl(PR_SET_NAME, "blkferry-keeper");
    char page[4096];
    while (read(end, page, 1) < 0 && errno == EINTR) {}
    // close(2) of a device waits for reads in progress and holds a lock that open(2) needs. So this
    // process waits for them before it closes, without the lock. Most are of the first page, and this
    // read waits for those; otherwise it requests the page again.
    for (int fd = 0; fd <= last; fd++) {
        posix_fadvise(fd, 0, sizeof page, POSIX_FADV_DONTNEED);
        while (pread(fd, page, sizeof page, 0) < 0 && errno == EINTR) {}
    }
    _exit(0);
}

int clb_keep_open(const uint64_t *devices, size_t count) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    int process = clb_fork_orphan();
    if (process == 0) keep_open(devices, count, ends[0]);
    close(ends[0]);
    if (process > 0) return ends[1];
    close(ends[1]);
    return -1;
}

static void ask_loop(const struct clb_loop_question *question, struct clb_loop_answer *answer) {
    struct stat status;
    int fd = open(question->node, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0) {
        bool is_same = fstat(fd, &status) == 0 && S_ISBLK(status.st_mode)
            && status.st_rdev == question->number;
        answer->by_kernel = is_same && clb_get_loop_backing(fd, &answer->backing) == 0;
        answer->is_detached = is_same && !answer->by_kernel && errno == ENXIO;
        close(fd);
        if (answer->by_kernel || answer->is_detached) return;
    }
    if (stat(question->path, &status) != 0) return;
    answer->by_path = true;
    answer->backing.device = status.st_dev;
    answer->backing.inode = status.st_ino;
    answer->backing.block_device = S_ISBLK(status.st_mode) ? status.st_rdev : 0;
    answer->file_size = (uint64_t)status.st_size;
}

int clb_ask_loops(const struct clb_loop_question *questions, size_t count) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return -1;
    int process = clb_fork_orphan();
    if (process == 0) {
        // This process must not keep connections, claims and locks.
        dup2(ends[1], 0);
        close_range(1, ~0U, 0);
        for (size_t index = 0; index < count; index++) {
            struct clb_loop_answer answer = {.by_kernel = false};
            ask_loop(&questions[index], &answer);
            if (write(0, &answer, sizeof answer) != sizeof answer) break;
        }
        _exit(0);
    }
    close(ends[1]);
    if (process > 0) return ends[0];
    close(ends[0]);
    return -1;
}

int clb_open_elsewhere(const char *path, int flags) {
    int ends[2];
    if (clb_socket_pair(ends) != 0) return -1;
    int process = clb_fork_orphan();
    if (process == 0) {
        // This process must not keep connections, claims and locks.
        dup2(ends[1], 0);
        close_range(1, ~0U, 0);
        int fd = open(path, flags | O_CLOEXEC);
        if (fd >= 0) clb_send_descriptors(0, fd, fd);
        _exit(0);
    }
    close(ends[1]);
    int descriptors[2] = {-1, -1};
    if (process > 0) {
        struct pollfd answer = {.fd = ends[0], .events = POLLIN};
        while (poll(&answer, 1, -1) < 0 && errno == EINTR) {}
        if (clb_receive_descriptors(ends[0], descriptors) == 1 && descriptors[1] >= 0)
            close(descriptors[1]);
    }
    close(ends[0]);
    return descriptors[0];
}

static void serve_reads(char *memory, size_t size) {
    struct clb_read_request request;
    while (read(0, &request, sizeof request) == sizeof request) {
        struct clb_read_answer answer = {.done = 0, .error = 0};
        if (request.place > size || request.length > size - request.place || request.direct > request.length)
            _exit(1);
        while (answer.done < request.length) {
            bool is_direct = answer.done < request.direct;
            uint64_t end = is_direct ? request.direct : request.length;
            ssize_t count = pread(is_direct ? 1 : 2, memory + request.place + answer.done, end - answer.done,
                (off_t)(request.offset + answer.done));
            if (count < 0 && errno == EINTR) continue;
            if (count < 0) answer.error = errno;
            if (count <= 0) break;
            answer.done += (uint64_t)count;
        }
        if (write(0, &answer, sizeof answer) != sizeof answer) break;
    }
    _exit(0);
}

int clb_start_reader(int direct, int buffered, void *memory, size_t size) {
    int ends[2];
    if (clb_socket_pair(ends) != 0) return -1;
    int process = clb_fork_orphan();
    if (process == 0) {
        prctl(PR_SET_NAME, "blkferry-reader");
        // This process must not keep connections, claims and locks of the target.
        dup2(ends[1], 0);
        dup2(direct, 1);
        dup2(buffered, 2);
        close_range(3, ~0U, 0);
        serve_reads(memory, size);
    }
    close(ends[1]);
    if (process > 0) return ends[0];
    close(ends[0]);
    return -1;
}
