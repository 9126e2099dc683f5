# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: refresh of a volume that is not thin, by the store of its snapshot; an overflowed one is no base
# seconds: 40
# disks: 512M 256M
volume_group vg0 ${disk}a
images ${disk}b
replica=/images/replica.img
lvcreate -qq -y -L 128M -n root vg0
fill /dev/vg0/root 0 128
truncate -s 128M $replica

step 'the first time, and again'
expect 0 blkferry refresh --snapshot-size 16M vg0/root $replica
same /dev/vg0/root $replica
fill /dev/vg0/root 40 1
dd if=/dev/zero of=/dev/vg0/root bs=4k seek=1000 count=3 oflag=direct conv=notrunc 2>/dev/null
before=$(sectors_read /dev/mapper/vg0-root-real)
expect 0 blkferry refresh -v --snapshot-size 16M vg0/root $replica
says 'have changed since'
after=$(sectors_read /dev/mapper/vg0-root-real)
same /dev/vg0/root $replica
echo "source: $((after - before)) of 262144 sectors"
[ $((after - before)) -le 7864 ] || fail 'more than 3 % were read'

step 'the file system is mounted, and used during the run'
mkfs.ext4 -q -F /dev/vg0/root
mount /dev/vg0/root /mnt
echo one >/mnt/one
sync
# mkfs has changed more than the store holds.
expect 0 blkferry refresh --overwrite --snapshot-size 64M vg0/root $replica
random 3000000 >/mnt/two
sync
expect 0 blkferry refresh -v --snapshot-size 64M vg0/root $replica
says 'have changed since'
cp /mnt/two /tmp/two
umount /mnt
expect 0 e2fsck -fy -E journal_only $replica
mount -o loop,ro $replica /mnt
cmp /mnt/two /tmp/two
[ "$(cat /mnt/one)" = one ] || fail 'a file is missing'
umount /mnt

step 'e2fsck has written to the replica: everything is compared'
expect 0 blkferry refresh --snapshot-size 8M vg0/root $replica
says 'full comparison'
same /dev/vg0/root $replica

step 'the snapshot has overflowed since'
fill /dev/vg0/root 0 30
expect 0 blkferry refresh --overwrite --snapshot-size 16M vg0/root $replica
says 'full comparison'
same /dev/vg0/root $replica
[ "$(lvs --noheadings -o lv_name vg0 | grep -c blkferry)" = 1 ] || fail "$(lvs vg0)"
