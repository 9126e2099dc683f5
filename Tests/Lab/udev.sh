# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: with udev, which opens every device that appears: snapshots, refresh, new and grown volumes
# seconds: 75
start_udev
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y --type thin-pool -L 200M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
lvcreate -qq -y -L 32M -n linear vg0
[ -L /dev/vg0/thin ] || fail 'udev has made no link'
for volume in thin linear; do
    fill /dev/vg0/$volume 0 32
    step "$volume: through a snapshot"
    expect 0 blkferry sync --snapshot vg0/$volume /tmp/$volume.img
    same /dev/vg0/$volume /tmp/$volume.img
    step "$volume: created, with snapshots, refreshed, grown"
    expect 0 blkferry sync --create --snapshot vg0/$volume vg0/$volume-replica@pool
    same /dev/vg0/$volume /dev/vg0/$volume-replica
    expect 0 blkferry refresh --snapshot-size 50% vg0/$volume vg0/$volume-replica
    fill /dev/vg0/$volume 3 1
    expect 0 blkferry refresh -v --snapshot-size 50% --snapshot-target day --keep 1 vg0/$volume vg0/$volume-replica
    says 'have changed since'
    same /dev/vg0/$volume /dev/vg0/$volume-replica
    for snapshot in $(lvs --noheadings -o lv_name -S "origin=$volume || origin=$volume-replica" vg0); do
        # LVM does not remove what udev has open.
        udevadm settle
        lvremove -qq -y "vg0/$snapshot"
    done
    lvextend -qq -L 36M vg0/$volume
    fill /dev/vg0/$volume 32 4
    expect 0 blkferry refresh --size-policy resize vg0/$volume vg0/$volume-replica
    same /dev/vg0/$volume /dev/vg0/$volume-replica
done
