# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a linear logical volume becomes the replica of another, and is refused while it is mounted
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y -L 64M -n source vg0
lvcreate -qq -y -L 64M -n target vg0
fill /dev/vg0/source 0 64
expect 0 blkferry /dev/vg0/source /dev/vg0/target
same /dev/vg0/source /dev/vg0/target

step 'in use'
mkfs.ext4 -q -F /dev/vg0/target
mount /dev/vg0/target /mnt
expect 2 blkferry --overwrite /dev/vg0/source /dev/vg0/target
says 'mounted on /mnt'
umount /mnt

step 'the physical volume, and the disk below'
expect 2 blkferry --overwrite /dev/vg0/source ${disk}a
says 'it is held by device-mapper device vg0-'
