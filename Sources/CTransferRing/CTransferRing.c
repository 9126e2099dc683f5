// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#define _GNU_SOURCE // syscall

#include "CTransferRing.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct ctr_ring {
    int fd;
    uint32_t capacity;
    void *shared;
    size_t shared_size;
    struct io_uring_sqe *entries;
    size_t entries_size;
    // Counters that wrap around: the kernel takes the submissions between their head and tail, and adds
    // the completions between theirs.
    uint32_t *submission_head, *submission_tail, *submission_mask, *submission_order;
    uint32_t *completion_head, *completion_tail, *completion_mask;
    struct io_uring_cqe *completions;
};

static void *map(int fd, size_t size, off_t what) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
    return memory == MAP_FAILED ? NULL : memory;
}

ctr_ring *ctr_make(uint32_t capacity) {
    struct io_uring_params parameters;
    memset(&parameters, 0, sizeof parameters);
    int fd = (int)syscall(SYS_io_uring_setup, capacity, &parameters);
    if (fd < 0) return NULL;
    // Since Linux 5.12 threads of this process make the transfers that have to sleep.
    uint32_t needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP | IORING_FEAT_NATIVE_WORKERS;
    ctr_ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL || (parameters.features & needed) != needed) {
        free(ring);
        close(fd);
        errno = ENOSYS;
        return NULL;
    }
    ring->fd = fd;
    ring->capacity = parameters.sq_entries;
    size_t submissions = parameters.sq_off.array + parameters.sq_entries * sizeof(uint32_t);
    size_t completions
        = parameters.cq_off.cqes + parameters.cq_entries * sizeof(struct io_uring_cqe);
    ring->shared_size = submissions > completions ? submissions : completions;
    ring->entries_size = parameters.sq_entries * sizeof(struct io_uring_sqe);
    ring->shared = map(fd, ring->shared_size, IORING_OFF_SQ_RING);
    ring->entries = map(fd, ring->entries_size, IORING_OFF_SQES);
    if (ring->shared == NULL || ring->entries == NULL) {
        ctr_free(ring);
        errno = ENOMEM;
        return NULL;
    }
    char *base = ring->shared;
    ring->submission_head = (uint32_t *)(base + parameters.sq_off.head);
    ring->submission_tail = (uint32_t *)(base + parameters.sq_off.tail);
    ring->submission_mask = (uint32_t *)(base + parameters.sq_off.ring_mask);
    ring->submission_order = (uint32_t *)(base + parameters.sq_off.array);
    ring->completion_head = (uint32_t *)(base + parameters.cq_off.head);
    ring->completion_tail = (uint32_t *)(base + parameters.cq_off.tail);
    ring->completion_mask = (uint32_t *)(base + parameters.cq_off.ring_mask);
    ring->completions = (struct io_uring_cqe *)(base + parameters.cq_off.cqes);
    return ring;
}

void ctr_free(ctr_ring *ring) {
    if (ring->shared != NULL) munmap(ring->shared, ring->shared_size);
    if (ring->entries != NULL) munmap(ring->entries, ring->entries_size);
    close(ring->fd);
    free(ring);
}

/// Takes the available results and returns their number.
static uint32_t collect(ctr_ring *ring, struct ctr_transfer *transfers) {
    uint32_t head = *ring->completion_head;
    uint32_t tail = __atomic_load_n(ring->completion_tail, __ATOMIC_ACQUIRE);
    uint32_t count = tail - head;
    for (; head != tail; head++) {
        struct io_uring_cqe *entry = &ring->completions[head & *ring->completion_mask];
        transfers[entry->user_data].result = entry->res;
    }
    __atomic_store_n(ring->completion_head, head, __ATOMIC_RELEASE);
    return count;
}

void ctr_perform(ctr_ring *ring, int fd, bool writes, struct ctr_transfer *transfers,
                 uint32_t count) {
    if (count > ring->capacity) abort();
    uint32_t tail = *ring->submission_tail;
    for (uint32_t i = 0; i < count; i++, tail++) {
        uint32_t slot = tail & *ring->submission_mask;
        struct io_uring_sqe *entry = &ring->entries[slot];
        memset(entry, 0, sizeof *entry);
        entry->opcode = writes ? IORING_OP_WRITE : IORING_OP_READ;
        entry->fd = fd;
        entry->off = (uint64_t)transfers[i].offset;
        entry->addr = (uint64_t)(uintptr_t)transfers[i].memory;
        entry->len = transfers[i].length;
        entry->user_data = i;
        ring->submission_order[slot] = slot;
        transfers[i].result = -ECANCELED;
    }
    __atomic_store_n(ring->submission_tail, tail, __ATOMIC_RELEASE);

    uint32_t waiting = count, ended = 0;
    while (ended < count) {
        int taken = (int)syscall(SYS_io_uring_enter, ring->fd, waiting, count - ended,
                                 IORING_ENTER_GETEVENTS, NULL, 0);
        if (taken > 0) waiting -= (uint32_t)taken;
        // For example, no memory. The submissions that the kernel has not taken stay undone. This thread
        // waits for the others, since the kernel still uses their memory.
        if (taken < 0 && errno != EINTR && waiting > 0) {
            uint32_t head = __atomic_load_n(ring->submission_head, __ATOMIC_ACQUIRE);
            __atomic_store_n(ring->submission_tail, head, __ATOMIC_RELEASE);
            count -= waiting;
            waiting = 0;
        }
        ended += collect(ring, transfers);
    }
}
