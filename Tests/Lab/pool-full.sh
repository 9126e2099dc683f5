# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a run whose target's or source's pool is full ends with 3; with room it continues
# disks: 256M 128M
volume_group vg0 ${disk}a
lvcreate -qq -y --type thin-pool -L 48M -c 64k -n pool vg0
lvchange -qq --errorwhenfull y vg0/pool
lvcreate -qq -y -V 64M --thinpool pool -n thin vg0 2>/dev/null
random $((64 << 20)) >/tmp/source.img

step 'the pool of the target is full'
expect 3 blkferry /tmp/source.img /dev/vg0/thin
says 'write at'
expect 3 blkferry --verify /tmp/source.img /dev/vg0/thin
differ /tmp/source.img /dev/vg0/thin
expect 2 blkferry --snapshot-target day --keep 1 /tmp/source.img /dev/vg0/thin
says 'reached threshold'
says 'lvextend --size SIZE vg0/pool'

step 'there is room'
lvextend -qq -L 80M vg0/pool
expect 0 blkferry /tmp/source.img /dev/vg0/thin
same /dev/vg0/thin /tmp/source.img

step 'the pool of the source is full: status 0 still means equal'
# An image on tmpfs has no change counter, and refresh keeps no base for such a target.
mkfs.ext4 -q -F -I 256 ${disk}b
mount ${disk}b /mnt
expect 0 blkferry refresh vg0/thin /mnt/replica.img
same /dev/vg0/thin /mnt/replica.img
fill /dev/vg0/thin 0 40 || true
dmsetup status vg0-pool-tpool
dmsetup status vg0-pool-tpool | grep -q out_of_data_space || fail 'the pool has room'
status=0
blkferry refresh vg0/thin /mnt/replica.img || status=$?
case $status in
    0) same /dev/vg0/thin /mnt/replica.img ;;
    3) ;;
    *) fail "status $status" ;;
esac
lvextend -qq -L 200M vg0/pool
expect 0 blkferry refresh vg0/thin /mnt/replica.img
same /dev/vg0/thin /mnt/replica.img
[ "$(lvs --noheadings -o lv_name vg0 | grep -c blkferry)" = 1 ] || fail "$(lvs vg0)"
