# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a program with the library refreshes, and reads only the changes, as blkferry does
# seconds: 30
# programs: replicate
# disks: 200M 64M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y --type thin-pool -L 128M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
lvcreate -qq -y -L 32M -n replica vg1
fill /dev/vg0/thin 0 32

step 'refresh: everything, then the changes'
expect 0 replicate --refresh vg0/thin /dev/vg1/replica
says '33554432 bytes compared, 0 left unread'
fill /dev/vg0/thin 7 1
expect 0 replicate --refresh vg0/thin /dev/vg1/replica
says '32505856 left unread'
same /dev/vg0/thin /dev/vg1/replica
[ "$(lvs --noheadings -o lv_name vg0 | grep -c blkferry)" = 1 ] || fail "$(lvs vg0)"

step 'blkferry continues where the library has ended'
fill /dev/vg0/thin 9 1
expect 0 blkferry refresh -v vg0/thin /dev/vg1/replica
says '1048576 of 33554432 bytes have changed since'
same /dev/vg0/thin /dev/vg1/replica

step 'a target that is in use: the snapshot is removed, and the base stays'
mkfs.ext4 -q -F /dev/vg1/replica
mount -o ro /dev/vg1/replica /mnt
expect 2 replicate --refresh vg0/thin /dev/vg1/replica
umount /mnt
[ "$(lvs --noheadings -o lv_name vg0 | grep -c blkferry)" = 1 ] || fail "$(lvs vg0)"

step '--since a snapshot of the user, through a snapshot of the volume'
fill /dev/vg0/thin 0 32
lvcreate -qq -y -s -kn -n monday vg0/thin
expect 0 blkferry --overwrite --since monday vg0/monday /dev/vg1/replica
fill /dev/vg0/thin 20 1
expect 0 replicate --since monday vg0/thin /dev/vg1/replica
says '32505856 left unread'
same /dev/vg0/thin /dev/vg1/replica
