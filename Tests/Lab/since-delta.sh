# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: diff --since with thin and classic snapshots, and apply to a volume elsewhere
# seconds: 60
# disks: 300M 64M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y --type thin-pool -L 80M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
lvcreate -qq -y -L 32M -n target vg1
fill /dev/vg0/thin 0 20

step 'thin snapshots: only what differs is in the delta, and it fits a volume of another group'
lvcreate -qq -y -s -kn -n sunday vg0/thin
expect 0 blkferry --overwrite vg0/sunday vg1/target
fill /dev/vg0/thin 5 1
blkdiscard -o 8M -l 4M /dev/vg0/thin
lvcreate -qq -y -s -kn -n monday vg0/thin
expect 0 blkferry diff -v --since sunday -o /tmp/delta vg0/monday
says 'bytes have changed since'
says 'as the snapshots show'
[ "$(stat -c %s /tmp/delta)" -lt 1500000 ] || fail 'the delta is too large'
expect 0 blkferry apply --verify /tmp/delta vg1/target
same /dev/vg0/monday /dev/vg1/target
expect 0 blkferry apply /tmp/delta vg1/target
says 'nothing was written'

step 'a snapshot is taken and removed; the volume may be written to meanwhile'
fill /dev/vg0/thin 15 1
rm /tmp/delta
expect 0 blkferry diff --snapshot --since monday -o /tmp/delta vg0/thin
[ -z "$(lvs --noheadings -S 'lv_name=~blkferry' vg0)" ] || fail 'a snapshot was left'
expect 0 blkferry apply /tmp/delta vg1/target
same /dev/vg0/thin /dev/vg1/target

step 'another base is refused'
fill /dev/vg1/target 30 1
rm /tmp/delta
expect 0 blkferry diff --since monday -o /tmp/delta vg0/thin
expect 2 blkferry apply /tmp/delta vg1/target
says 'it is not the base of the delta'

step 'a classic snapshot'
lvcreate -qq -y -L 32M -n root vg0
fill /dev/vg0/root 0 32
lvcreate -qq -y -s -L 16M -n old vg0/root
expect 0 blkferry --overwrite vg0/old vg1/target
fill /dev/vg0/root 20 1
rm /tmp/delta
expect 0 blkferry diff -v --since old -o /tmp/delta vg0/root
says '1048576 of 33554432 bytes have changed since'
expect 0 blkferry apply /tmp/delta vg1/target
same /dev/vg0/root /dev/vg1/target

step 'a snapshot that is missing, and a source that is no volume'
rm /tmp/delta
expect 3 blkferry diff --since none -o /tmp/delta vg0/root
truncate -s 32M /tmp/image
expect 3 blkferry diff --since old -o /tmp/delta /tmp/image
[ ! -e /tmp/delta ] || fail 'a delta was made'
