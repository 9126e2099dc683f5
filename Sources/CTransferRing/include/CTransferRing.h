// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// Makes many transfers of one file with one system call, through io_uring(7). It does not use liburing,
// since it only submits and waits.

#ifndef CTRANSFERRING_H
#define CTRANSFERRING_H

#include <stdbool.h>
#include <stdint.h>

typedef struct ctr_ring ctr_ring;

struct ctr_transfer {
    int64_t offset;  // in the file, bytes
    void *memory;
    uint32_t length; // bytes
    int32_t result;  // bytes transferred, or the negative errno
};

/// io_uring_setup(2) for so many transfers at once; NULL with errno if the kernel has no io_uring, is older
/// than 5.12 or does not permit it
ctr_ring *ctr_make(uint32_t capacity);
void ctr_free(ctr_ring *ring);

/// Reads or writes, and returns when every transfer has succeeded or failed. Only one thread may call it
/// at a time, with at most as many transfers as the ring has room for.
void ctr_perform(ctr_ring *ring, int fd, bool writes, struct ctr_transfer *transfers,
                 uint32_t count);

#endif
