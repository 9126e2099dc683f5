# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: disks, partitions, loop devices and images as targets, changed in every way: the next run detects it
# seconds: 120
# disks: 100M 16M 40M 80M
. /counters.sh
modprobe sd_mod
modprobe scsi_debug dev_size_mb=16 lbpu=1 lbpws=1 delay=0
becomes [ -b /dev/sda ]
images ${disk}d
source_group
writes="512 4096 buffered held mmap discard zero replay"

# shellcheck disable=SC2086 # several
{
    cells disk ${disk#/dev/} ${disk}b none $writes
    is 1
    cells disk sd /dev/sda none $writes
    is 1

    below=${disk}c
    start=1
    path=${disk}c1
    partitioned 2048 +16M
    cells partition partition ${disk}c1 none below resize $writes replace
    is 1

    below=/images/backing
    start=0
    truncate -s 16M $below
    loop=$(losetup -f --show $below)
    cells loop loop $loop none below resize $writes replace
    is 1
    losetup -d $loop

    truncate -s 16M /images/image
    cells image image /images/image none resize $writes replace
    is 1
}
