# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: volumes as targets, changed in every way: the next run detects it
# seconds: 160
# disks: 100M 110M 28M 110M
. /counters.sh
modprobe dm-raid
modprobe dm-mirror
# Volumes are moved to the small one and back.
volume_group vg1 ${disk}b ${disk}c ${disk}d
lvcreate -qq -y -L 16M -n linear vg1 ${disk}b
lvcreate -qq -y -i 2 -L 16M -n striped vg1 ${disk}b ${disk}d
lvcreate -qq -y --type raid1 -m 1 -L 16M -n raid1 vg1 ${disk}b ${disk}d
lvcreate -qq -y --type mirror --mirrorlog core -m 1 -L 16M -n mirror vg1 ${disk}b ${disk}d
source_group
writes="512 4096 buffered held mmap discard zero replay"

# shellcheck disable=SC2086 # several
{
    cells volume linear /dev/vg1/linear none merge move resize $writes replace
    is 1
    cells volume striped /dev/vg1/striped none merge move resize $writes replace
    is 1
    cells volume raid1 /dev/vg1/raid1 none merge move resize $writes replace
    is 1
    cells volume mirror /dev/vg1/mirror none merge move resize $writes replace
    is 1
}
