// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// The helper: a process that keeps three capabilities for the server, which has dropped its own. It has
// four operations. It forks a process for each request, so that a device that does not answer delays no
// other request.

#define _GNU_SOURCE
#include "CLinuxBlock.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// faccessat2(2) got its number with Linux 5.8, the same on every architecture.
#define CLB_SYS_FACCESSAT2 439

int clb_may_access(const char *path, int mode) {
    return (int)syscall(CLB_SYS_FACCESSAT2, AT_FDCWD, path, mode, AT_EACCESS);
}

uint64_t clb_get_capabilities(void) {
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &header, data) != 0) return 0;
    return data[0].permitted | (uint64_t)data[1].permitted << 32;
}

int clb_set_capabilities(uint64_t permitted, uint64_t effective) {
    // capset(2) clears the ambient capabilities as well, because it makes none inheritable.
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {
        {.permitted = (uint32_t)permitted, .effective = (uint32_t)effective},
        {.permitted = (uint32_t)(permitted >> 32), .effective = (uint32_t)(effective >> 32)},
    };
    return (int)syscall(SYS_capset, &header, data);
}

int clb_limit_capabilities(uint64_t kept) {
    for (int number = 0; number < 64; number++) {
        int is_there = prctl(PR_CAPBSET_READ, number, 0, 0, 0);
        if (is_there < 0) break;
        if (is_there == 0 || kept >> number & 1) continue;
        if (prctl(PR_CAPBSET_DROP, number, 0, 0, 0) != 0) return -1;
    }
    return 0;
}

struct request {
    uint32_t operation;
    uint32_t size; // of a table
    uint64_t device;
};
struct answer {
    int32_t error;
    uint32_t targets;
};

// The largest table that a request may ask for.
static _Alignas(8) char table[256 << 10];

static bool transfer(ssize_t (*call)(int, char *, size_t), int fd, void *bytes, size_t count) {
    for (size_t done = 0; done < count;) {
        ssize_t result = call(fd, (char *)bytes + done, count - done);
        if (result < 0 && errno == EINTR) continue;
        if (result <= 0) return false;
        done += (size_t)result;
    }
    return true;
}
static ssize_t read_some(int fd, char *bytes, size_t count) { return read(fd, bytes, count); }
static ssize_t send_some(int fd, char *bytes, size_t count) {
    return sendto(fd, bytes, count, MSG_NOSIGNAL, NULL, 0);
}

// MARK: The helper

// The target of a link; "?" if it cannot be read.
static size_t read_link(const char *path, char target[PATH_MAX]) {
    ssize_t count = readlink(path, target, PATH_MAX);
    if (count > 0) return (size_t)count;
    target[0] = '?';
    return 1;
}

static void print_word(FILE *stream, const char *word, size_t count) {
    fwrite(word, 1, count, stream);
    fputc(0, stream);
}

static void print_processes(int socket) {
    FILE *stream = fdopen(socket, "w");
    DIR *processes = opendir("/proc");
    if (!stream || !processes) return;
    static char memory[64 << 10];
    setvbuf(stream, memory, _IOFBF, sizeof memory);
    char target[PATH_MAX];
    for (struct dirent *process; (process = readdir(processes));) {
        if (process->d_name[0] < '1' || process->d_name[0] > '9') continue;
        char path[64];
        print_word(stream, process->d_name, strlen(process->d_name));
        snprintf(path, sizeof path, "/proc/%.20s/ns/mnt", process->d_name);
        print_word(stream, target, read_link(path, target));
        snprintf(path, sizeof path, "/proc/%.20s/fd", process->d_name);
        DIR *files = opendir(path);
        for (struct dirent *file; files && (file = readdir(files));) {
            if (file->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "/proc/%.20s/fd/%.20s", process->d_name, file->d_name);
            size_t count = read_link(path, target);
            if (target[0] != '/') continue; // such as socket:[7]
            // The mode of the link is that of the open file (proc_pid_fd(5)).
            struct stat status;
            bool is_writable = lstat(path, &status) == 0 && status.st_mode & S_IWUSR;
            print_word(stream, is_writable ? "w" : "r", 1);
            print_word(stream, target, count);
        }
        if (files) closedir(files);
        fputc(0, stream);
    }
    fflush(stream);
}

static void answer_request(int socket, int fd, int barrier) {
    struct request request;
    struct answer answer = {.error = EINVAL};
    if (!transfer(read_some, socket, &request, sizeof request)) return;
    int result = -1;
    errno = EINVAL;
    switch (request.operation) {
    case clb_helper_flush: result = clb_flush_buffers(fd); break;
    case clb_helper_reread: result = clb_reread_partitions(fd); break;
    case clb_helper_table:
        if (request.size > sizeof table) break;
        result = clb_ask_mapper(
            clb_ioctl, fd, NULL, request.device, true, table, request.size, &answer.targets);
        break;
    case clb_helper_processes:
        close(fd);
        print_processes(socket);
        return;
    }
    answer.error = result == 0 ? 0 : errno;
    // The server may close the device after the answer, and then no process may have it open: this one
    // closes it, and waits until the helper has closed it.
    close(fd);
    char nothing;
    read_some(barrier, &nothing, 1);
    if (transfer(send_some, socket, &answer, sizeof answer) && answer.error == 0
        && request.operation == clb_helper_table)
        transfer(send_some, socket, table, request.size);
}

static void help(int socket) {
    static const uint64_t kept =
        1ULL << CAP_SYS_ADMIN | 1ULL << CAP_SYS_PTRACE | 1ULL << CAP_DAC_READ_SEARCH;
    // The helper must not keep connections and standard streams open.
    dup2(socket, 0);
    close_range(1, ~0U, 0);
    if (chdir("/") != 0) _exit(1);
    prctl(PR_SET_NAME, "blkferry-helper");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    // The kernel removes forked processes that have ended, without a wait.
    signal(SIGCHLD, SIG_IGN);
    clb_limit_capabilities(0);
    uint64_t mine = clb_get_capabilities() & kept;
    if (clb_set_capabilities(mine, mine) != 0) _exit(1);
    while (true) {
        struct pollfd request = {.fd = 0, .events = POLLIN};
        if (poll(&request, 1, -1) < 0) continue;
        int descriptors[2];
        ssize_t count = clb_receive_descriptors(0, descriptors);
        if (count == 0) _exit(0);
        if (count < 0) {
            if (errno == EAGAIN || errno == EINTR) continue;
            _exit(1);
        }
        int barrier[2] = {-1, -1};
        if (descriptors[0] >= 0 && descriptors[1] >= 0 && pipe(barrier) == 0 && fork() == 0) {
            close(0);
            close(barrier[1]);
            answer_request(descriptors[0], descriptors[1], barrier[0]);
            _exit(0);
        }
        for (int index = 0; index < 2; index++) {
            if (descriptors[index] >= 0) close(descriptors[index]);
        }
        for (int index = 0; index < 2; index++) {
            if (barrier[index] >= 0) close(barrier[index]);
        }
    }
}

int clb_start_helper(void) {
    int ends[2];
    if (clb_socket_pair(ends) != 0) return -1;
    int process = clb_fork_orphan();
    if (process == 0) help(ends[1]);
    close(ends[1]);
    if (process > 0) return ends[0];
    close(ends[0]);
    return -1;
}

// MARK: The server's side

// Returns the end of a socket from which the caller reads the answer.
static int ask(int helper, int fd, struct request request) {
    int ends[2];
    if (clb_socket_pair(ends) != 0) return -1;
    bool is_sent = clb_send_descriptors(helper, ends[1], fd >= 0 ? fd : ends[1]) == 1
        && transfer(send_some, ends[0], &request, sizeof request);
    close(ends[1]);
    if (is_sent) return ends[0];
    close(ends[0]);
    errno = EPERM;
    return -1;
}

static bool receive(int socket, struct answer *answer) {
    // If the helper has ended, the error is the one that this process would get.
    if (!transfer(read_some, socket, answer, sizeof *answer)) answer->error = EPERM;
    return answer->error == 0;
}

static int finish(int socket, int error) {
    close(socket);
    errno = error;
    return error == 0 ? 0 : -1;
}

int clb_help(int helper, enum clb_helper_operation operation, int fd) {
    int socket = ask(helper, fd, (struct request){.operation = operation});
    if (socket < 0) return -1;
    struct answer answer;
    receive(socket, &answer);
    return finish(socket, answer.error);
}

int clb_help_with_table(
    int helper, int control, uint64_t device, void *memory, uint32_t size, uint32_t *targets
) {
    int socket = ask(
        helper, control,
        (struct request){.operation = clb_helper_table, .size = size, .device = device});
    if (socket < 0) return -1;
    struct answer answer;
    if (receive(socket, &answer) && !transfer(read_some, socket, memory, size)) answer.error = EPERM;
    *targets = answer.targets;
    return finish(socket, answer.error);
}

int clb_help_with_processes(int helper) {
    return ask(helper, -1, (struct request){.operation = clb_helper_processes});
}
