// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#ifndef CTESTSUPPORT_H
#define CTESTSUPPORT_H

#include <poll.h>
#include <stdbool.h>
#include <stdint.h>

/// ioctl(2) LOOP_CTL_GET_FREE and LOOP_CONFIGURE: attaches a free loop device to an open file.
///
/// The device detaches itself when its last descriptor is closed (LO_FLAGS_AUTOCLEAR), so also when
/// this process is killed. Returns the device's descriptor and its number, or -1 and errno.
int cts_attach_loop(int backing, unsigned int sector_size, bool read_only, bool partitions,
                    uint64_t offset, int *number);

/// accept4(2) with SOCK_CLOEXEC: the next connection of a listening socket, or -1 and errno.
int cts_accept(int listener);

/// ppoll(2): like poll(2), but the time limit is in nanoseconds; negative for none.
int cts_poll(struct pollfd *descriptors, unsigned long count, int64_t nanoseconds);

#endif
