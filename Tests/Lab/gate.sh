# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# disks: 128M 128M 48M 48M
# shows: the gate on physical volumes, volumes in use, pools and their hidden parts, md and swap
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y --type thin-pool -L 40M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
lvcreate -qq -y -L 32M -n linear vg0
lvcreate -qq -y -s -L 16M -n classic vg0/linear
# Smaller than all of them, so that no refusal is because of the size.
lvcreate -qq -y -L 4M -n source vg0
fill /dev/vg0/source 0 4

# refuses DEVICE TEXT: the gate refuses it for this reason.
refuses() {
    expect 2 blkferry --overwrite --size-policy prefix /dev/vg0/source "$1"
    says "$1: refused: "
    says "$2"
}
# refused DEVICE TEXT: the same, and the device is unchanged.
refused() {
    before=$(digest "$1")
    refuses "$1" "$2"
    [ "$(digest "$1")" = "$before" ] || fail "$1 was written to"
}

step 'devices below other devices'
for part in vg0-pool_tdata vg0-pool_tmeta vg0-pool-tpool vg0-linear-real vg0-classic-cow; do
    refused "/dev/mapper/$part" 'it is held by device-mapper device vg0-'
done
refused ${disk}a 'it is held by device-mapper device vg0-'

step 'a pool, which is no disk'
refused /dev/mapper/vg0-pool 'it is read-only'

step 'swap, and a mounted volume'
mkswap /dev/vg0/thin >/dev/null
swapon /dev/vg0/thin
refused /dev/vg0/thin 'it is in use as swap'
swapoff /dev/vg0/thin
mkfs.ext4 -q -F /dev/vg0/thin
mount -o ro /dev/vg0/thin /mnt
refused /dev/vg0/thin 'it is mounted on /mnt'
umount /mnt

step 'md'
modprobe raid1
mdadm --quiet --create /dev/md0 --run --metadata=1.2 --level=1 --raid-devices=2 ${disk}c ${disk}d </dev/null
# The content is not compared, since md itself writes there.
refuses ${disk}c md0
sgdisk -n 1:0:+40M /dev/md0 >/dev/null
node /dev/md0p1
mkfs.ext4 -q -F /dev/md0p1
mount -o ro /dev/md0p1 /mnt
refused /dev/md0 md0p1
umount /mnt
mdadm --quiet --stop /dev/md0
