# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: thin volumes and origins of classic snapshots as targets, changed in every way: the next run detects it
# seconds: 100
# disks: 100M 160M 44M
. /counters.sh
# The pool and the origin are moved to the other one and back.
volume_group vg1 ${disk}b ${disk}c
lvcreate -qq -y --type thin-pool -L 32M -n pool vg1 ${disk}b
lvcreate -qq -y -V 16M --thinpool pool -n thin vg1
lvcreate -qq -y -L 16M -n origin vg1 ${disk}b
source_group
writes="512 4096 buffered held mmap zero replay"

# shellcheck disable=SC2086 # several
{
    cells thin thin /dev/vg1/thin none merge rollback move resize discard $writes replace
    is 1
    # The origin keeps one snapshot, and another one is merged. It takes no discard, and LVM does not cut it.
    lvcreate -qq -y -s -L 20M -n stays vg1/origin
    cells volume snapshot-origin /dev/vg1/origin none merge move $writes
    is 1
}
step 'a classic snapshot itself, and a thin volume with another one as its external origin'
lvcreate -qq -y -s -L 20M -n classic vg1/origin
cells volume classic-snapshot /dev/vg1/classic none 512
is 0
lvcreate -qq -y -an -L 16M -n external vg1
lvchange -qq --permission r vg1/external
lvcreate -qq -y -s --thinpool pool -n above vg1/external
cells thin external-origin /dev/vg1/above none 512
is 0
