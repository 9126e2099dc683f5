// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#define _GNU_SOURCE
#include "CTestSupport.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

int cts_attach_loop(int backing, unsigned int sector_size, bool read_only, bool partitions,
                    uint64_t offset, int *number) {
    int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    if (control < 0) return -1;
    int device = -1;
    // Another process may take the free device first; then the next one is asked for.
    for (int attempt = 0; attempt < 256; attempt++) {
        *number = ioctl(control, LOOP_CTL_GET_FREE);
        if (*number < 0) break;
        char path[32];
        snprintf(path, sizeof path, "/dev/loop%d", *number);
        device = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
        if (device < 0) break;
        struct loop_config config;
        memset(&config, 0, sizeof config);
        config.fd = (unsigned int)backing;
        config.block_size = sector_size;
        config.info.lo_offset = offset;
        config.info.lo_flags = LO_FLAGS_AUTOCLEAR | (read_only ? LO_FLAGS_READ_ONLY : 0) |
                               (partitions ? LO_FLAGS_PARTSCAN : 0);
        if (ioctl(device, LOOP_CONFIGURE, &config) == 0) {
            // A device that an earlier user has made read-only stays so when it is detached.
            int no = 0;
            if (!read_only) (void)ioctl(device, BLKROSET, &no);
            break;
        }
        int reason = errno;
        close(device);
        device = -1;
        errno = reason;
        if (reason != EBUSY) break;
    }
    int reason = errno;
    close(control);
    errno = reason;
    return device;
}

int cts_accept(int listener) { return accept4(listener, NULL, NULL, SOCK_CLOEXEC); }

int cts_poll(struct pollfd *descriptors, unsigned long count, int64_t nanoseconds) {
    struct timespec limit = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    return ppoll(descriptors, count, nanoseconds < 0 ? NULL : &limit, NULL);
}
