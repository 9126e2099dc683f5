# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: chunks of odd sizes, pools that do not zero, and pools themselves: no old data, no wrong target
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y -L 20M -n source vg0
# Zeros first, data, zeros.
fill /dev/vg0/source 1 15
dd if=/dev/zero of=/dev/vg0/source bs=1M count=1 oflag=direct conv=notrunc 2>/dev/null
dd if=/dev/zero of=/dev/vg0/source bs=1M seek=16 count=4 oflag=direct conv=notrunc 2>/dev/null

for chunk in 64 192 320; do
    step "chunks of $chunk KiB: zeros of the source are zeros on the target"
    lvcreate -qq -y --type thin-pool -c ${chunk}k -L 40M -n pool vg0
    lvcreate -qq -y -V 20M --thinpool pool -n thin vg0
    fill /dev/vg0/thin 0 20
    lvcreate -qq -y -s -kn -n before vg0/thin
    expect 0 blkferry /dev/vg0/source /dev/vg0/thin
    same /dev/vg0/source /dev/vg0/thin
    lvremove -qq -y vg0/pool
done

step 'the kernel cuts discards smaller than chunks'
lvcreate -qq -y --type thin-pool -c 192k -L 40M -n pool vg0
lvcreate -qq -y -V 20M --thinpool pool -n thin vg0
fill /dev/vg0/thin 1 19
echo 65536 >"$(described /dev/vg0/thin)/queue/discard_max_bytes"
expect 0 blkferry --whole-file /dev/vg0/source /dev/vg0/thin
same /dev/vg0/source /dev/vg0/thin
lvremove -qq -y vg0/pool

step 'devices above a pool that does not zero are no targets'
lvcreate -qq -y --type thin-pool -Zn -c 64k -L 40M -n raw vg0
lvcreate -qq -y -V 20M --thinpool raw -n thin vg0
lvcreate -qq -y -s -L 24M -n classic vg0/thin
expect 2 blkferry /dev/vg0/source /dev/vg0/thin
says 'a thin pool that does not zero new chunks'
lvremove -qq -y vg0/classic
echo '0 40960 linear /dev/vg0/thin 0' | mapped part
expect 2 blkferry /dev/vg0/source /dev/mapper/part
dmsetup remove --noudevsync part
loop=$(losetup --find --show /dev/vg0/thin)
expect 2 blkferry /dev/vg0/source "$loop"
losetup --detach "$loop"
lvcreate -qq -y -L 4M -n base vg0
lvchange -qq -an -pr vg0/base
lvcreate -qq -y -s --thinpool vg0/raw -kn -n outside vg0/base
expect 2 blkferry --size-policy resize /dev/vg0/source /dev/vg0/outside
expect 0 blkferry /dev/vg0/source /dev/vg0/thin
same /dev/vg0/source /dev/vg0/thin

step 'as the advice says'
echo '0 40960 linear /dev/vg0/thin 0' | mapped part
lvchange -qq --zero y vg0/raw
fill /dev/vg0/source 0 1
expect 0 blkferry /dev/vg0/source /dev/mapper/part
same /dev/vg0/source /dev/mapper/part

step 'a pool without volumes'
lvcreate -qq -y --type thin-pool -L 24M -n empty vg0
lvcreate -qq -y -L 4M -n small vg0
for name in /dev/mapper/vg0-empty*; do
    expect 2 blkferry --overwrite --size-policy prefix /dev/vg0/small "$name"
    case $name in
        *-empty) says 'it is a thin pool' ;;
        *) says 'refused: it is held by' ;;
    esac
done
