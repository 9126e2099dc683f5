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

/// ioctl(2) of a device mapper that answers as the files in the directory of its control file tell:
///
/// - `table` and `status` have lines as dmsetup(8) prints them; `table-next` and `status-next` have those
///   after the first status. Without `status` there is a thin pool with the root in `held` and the mode in
///   `mode`, and without `held` there is no device (ENXIO).
/// - `messages` gets each message, `name` and `process` get the device and the process id of the last one.
/// - `held` changes as messages reserve and release. With `faster`, another program has reserved that root
///   first. With `stuck`, nothing is released. With `slow-message`, messages wait.
/// - With `no-more`, nothing is answered after a message (EIO).
int cts_mapper_ioctl(int control, unsigned long request, void *memory);

#endif
