// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// The calls of the device mapper (linux/dm-ioctl.h). An ioctl has a struct dm_ioctl, and data behind it.

#define _GNU_SOURCE
#include "CLinuxBlock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

const size_t clb_mapper_answer_start = sizeof(struct dm_ioctl);

int clb_ioctl(int fd, unsigned long request, void *memory) { return ioctl(fd, request, memory); }

static struct dm_ioctl *address(const char *name, uint64_t device, void *memory, uint32_t size) {
    struct dm_ioctl *question = memory;
    memset(memory, 0, size);
    *question = (struct dm_ioctl){
        .version = {DM_VERSION_MAJOR, 0, 0},
        .data_size = size,
        .data_start = sizeof *question,
        // The kernel's huge_decode_dev.
        .dev = (minor(device) & 0xff) | ((uint64_t)major(device) << 8)
               | ((uint64_t)(minor(device) & ~0xffU) << 12),
    };
    size_t length = name ? strlen(name) : 0;
    if (length >= sizeof question->name) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    if (name) memcpy(question->name, name, length);
    return question;
}

int clb_ask_mapper(
    clb_mapper_call *call, int control, const char *name, uint64_t device, bool table, void *memory,
    uint32_t size, uint32_t *targets
) {
    struct dm_ioctl *question = address(name, device, memory, size);
    if (!question) return -1;
    if (table) question->flags = DM_STATUS_TABLE_FLAG;
    if (call(control, DM_TABLE_STATUS, question) != 0) return -1;
    if (question->flags & DM_BUFFER_FULL_FLAG) {
        errno = EMSGSIZE;
        return -1;
    }
    *targets = question->target_count;
    return 0;
}

static int send_message(clb_mapper_call *call, int control, const char *name, const char *message) {
    _Alignas(8) char memory[sizeof(struct dm_ioctl) + sizeof(struct dm_target_msg) + 64];
    struct dm_ioctl *question = address(name, 0, memory, sizeof memory);
    if (!question) return -1;
    struct dm_target_msg *target = (struct dm_target_msg *)(question + 1);
    size_t length = strlen(message);
    if (length >= 64) {
        errno = EMSGSIZE;
        return -1;
    }
    memcpy(target->message, message, length);
    return call(control, DM_TARGET_MSG, question);
}

// Returns an error number.
static int send_and_record(
    clb_mapper_call *call, int control, const char *name, const char *message, const char *undo, int file
) {
    if (send_message(call, control, name, message) != 0) return errno;
    if (!undo) return ftruncate(file, 0) == 0 ? 0 : errno;
    _Alignas(8) char memory[4 << 10];
    uint32_t targets;
    if (clb_ask_mapper(call, control, name, 0, false, memory, sizeof memory, &targets) == 0) {
        char *status = memory + sizeof(struct dm_ioctl) + sizeof(struct dm_target_spec);
        size_t length = strlen(status);
        status[length++] = '\n';
        ssize_t written = pwrite(file, status, length, 0);
        if (written == (ssize_t)length) return 0;
        if (written >= 0) errno = ENOSPC;
    }
    int error = errno;
    send_message(call, control, name, undo);
    return error;
}

int clb_tell_mapper(
    clb_mapper_call *call, const char *control, const char *name, const char *message, const char *undo,
    int file
) {
    // A handler of this process must not run in the child.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_NAME, CLB_FORK_NAME);
        setsid();
        // This process must not keep connections, claims and other locks.
        if (dup2(file, 0) < 0) _exit(errno);
        close_range(1, ~0U, 0);
        int fd = open(control, O_RDWR | O_CLOEXEC);
        _exit(fd < 0 ? errno : send_and_record(call, fd, name, message, undo, 0));
    }
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    int status = 0;
    pid_t ended = child;
    while (child > 0 && (ended = waitpid(child, &status, 0)) < 0 && errno == EINTR) {}
    if (ended < 0) return -1;
    errno = WIFEXITED(status) ? WEXITSTATUS(status) : ECANCELED;
    return status == 0 ? 0 : -1;
}
