// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

// Many transfers of one file with one system call: io_uring(7), without its library, since no more
// of it is needed than to submit and to wait.

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

/// io_uring_setup(2) for so many transfers at once; NULL and errno where the kernel has none, is too
/// old (before 5.12) or does not allow it
ctr_ring *ctr_make(uint32_t capacity);
void ctr_free(ctr_ring *ring);

/// Reads or writes, and returns when all of it has ended, well or not. One thread at a time.
/// At most as many transfers as the ring has room for.
void ctr_perform(ctr_ring *ring, int fd, bool writes, struct ctr_transfer *transfers,
                 uint32_t count);

#endif
