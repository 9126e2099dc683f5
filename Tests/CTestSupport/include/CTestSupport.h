// SPDX-License-Identifier: Apache-2.0
// Copyright 2026 the blkferry authors

#ifndef CTESTSUPPORT_H
#define CTESTSUPPORT_H

#include <stdbool.h>
#include <stdint.h>

/// ioctl(2) LOOP_CTL_GET_FREE and LOOP_CONFIGURE: attaches a free loop device to an open file.
///
/// The device detaches itself when its last descriptor is closed (LO_FLAGS_AUTOCLEAR), so also when
/// this process is killed. Returns the device's descriptor and its number, or -1 and errno.
int cts_attach_loop(int backing, unsigned int sector_size, bool read_only, bool partitions,
                    uint64_t offset, int *number);

#endif
