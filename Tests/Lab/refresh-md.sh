# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: refresh onto md linear and raid0, which count neither all writes nor discards, compares everything each time
# seconds: 30
# disks: 60M 20M 20M
for module in md-mod linear raid0; do modprobe -q $module || true; done
volume_group vg0 ${disk}a
lvcreate -qq -y --type thin-pool -L 48M -n pool vg0
lvcreate -qq -y -V 16M --thinpool pool -n root vg0
fill /dev/vg0/root 0 16

# whole: another program has changed the array, and the next refresh compares everything and repairs it.
whole() {
    [ "$(digest /dev/vg0/root)" != "$(digest /dev/md7 16777216)" ] || fail 'the array is as it was'
    expect 0 blkferry refresh -v --size-policy prefix vg0/root /dev/md7
    says 'it is an md array'
    says 'falls back to a full comparison'
    same /dev/vg0/root /dev/md7
}
for level in linear 0; do
    step "md $level"
    mdadm --create /dev/md7 --level=$level --raid-devices=2 --metadata=1.2 --run --force ${disk}b ${disk}c </dev/null
    node /dev/md7
    expect 0 blkferry refresh --overwrite --size-policy prefix vg0/root /dev/md7
    same /dev/vg0/root /dev/md7
    dd if=/dev/urandom of=/dev/md7 bs=512 seek=12289 count=1 oflag=direct conv=notrunc 2>/dev/null
    whole
    blkdiscard -o 6M -l 1M /dev/md7
    whole
    mdadm --stop /dev/md7
    rm -f /dev/md7
    mdadm --zero-superblock ${disk}b ${disk}c
done
