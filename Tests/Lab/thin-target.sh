# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: on a thin target unchanged chunks stay shared with its snapshot, and zeros are discarded
# seconds: 35
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y --type thin-pool -L 300M -n pool vg0
lvcreate -qq -y -V 64M --thinpool pool -n target vg0
lvcreate -qq -y -L 64M -n source vg0
fill /dev/vg0/source 0 64
used() { lvs --noheadings -o data_percent vg0/pool | tr -d ' '; }
mapped() { lvs --noheadings -o data_percent vg0/target | tr -d ' '; }
expect 0 blkferry /dev/vg0/source /dev/vg0/target
same /dev/vg0/source /dev/vg0/target
lvcreate -qq -y -s -kn -n before vg0/target
[ "$(used)" = 21.33 ] || fail "the pool is used by $(used) %, and not by the 64 of 300 MiB"

step 'one MiB changes: sixteen chunks are not shared any more'
fill /dev/vg0/source 10 1
expect 0 blkferry /dev/vg0/source /dev/vg0/target
same /dev/vg0/source /dev/vg0/target
[ "$(used)" = 21.67 ] || fail "the pool is used by $(used) %, and not by 65 of 300 MiB"

step 'half of it becomes zeros: they are not stored'
dd if=/dev/zero of=/dev/vg0/source bs=1M count=32 oflag=direct conv=notrunc 2>/dev/null
expect 0 blkferry /dev/vg0/source /dev/vg0/target
same /dev/vg0/source /dev/vg0/target
[ "$(mapped)" = 50.00 ] || fail "$(mapped) % of the target are mapped, and not the half with data"

step 'zeros with ragged edges'
dd if=/dev/zero of=/dev/vg0/source bs=4k seek=9001 count=1000 oflag=direct conv=notrunc 2>/dev/null
expect 0 blkferry /dev/vg0/source /dev/vg0/target
same /dev/vg0/source /dev/vg0/target

step 'a pool that does not zero: old data around a block does not stay in a chunk'
lvcreate -qq -y --type thin-pool -Zn -c 192k -L 48M -n raw vg0
# fresh: a volume in a pool whose chunks all hold old data.
fresh() {
    ! lvs vg0/fresh >/dev/null 2>&1 || lvremove -qq -y vg0/fresh
    lvcreate -qq -y -V 48M --thinpool raw -n old vg0
    fill /dev/vg0/old 0 48
    lvremove -qq -y vg0/old
    lvcreate -qq -y -V 32M --thinpool raw -n fresh vg0
}
fresh
dd if=/dev/urandom of=/dev/vg0/fresh bs=4k count=1 oflag=direct 2>/dev/null
! dd if=/dev/vg0/fresh bs=4k skip=1 count=1 2>/dev/null | cmp -s -n 4096 - /dev/zero || fail 'the pool is clean'
fresh
lvcreate -qq -y -L 32M -n sparse vg0
dd if=/dev/zero of=/dev/vg0/sparse bs=1M count=32 oflag=direct 2>/dev/null
block=0
while [ $block -lt 8192 ]; do
    dd if=/dev/urandom of=/dev/vg0/sparse bs=4k seek=$block count=1 oflag=direct conv=notrunc 2>/dev/null
    block=$((block + 273))
done
expect 0 blkferry /dev/vg0/sparse /dev/vg0/fresh
same /dev/vg0/sparse /dev/vg0/fresh
# The last chunk is only a part of one, in the volume and in the image.
head -c 29999999 /dev/vg0/sparse >/tmp/image
random 1000 >>/tmp/image
fresh
expect 0 blkferry --size-policy prefix /tmp/image /dev/vg0/fresh
cmp -n 30000999 /tmp/image /dev/vg0/fresh
tail -c +30001000 /dev/vg0/fresh | cmp -n 3553433 - /dev/zero

step 'a snapshot of a volume outside of the pool: a discarded chunk shows the origin again'
lvcreate -qq -y -L 16M -n base vg0
fill /dev/vg0/base 0 16
lvchange -qq -an -pr vg0/base
lvcreate -qq -y -s --thinpool vg0/pool -kn -n outside vg0/base
lvcreate -qq -y -L 16M -n zeros vg0
dd if=/dev/zero of=/dev/vg0/zeros bs=1M count=16 oflag=direct 2>/dev/null
expect 0 blkferry /dev/vg0/zeros /dev/vg0/outside
same /dev/vg0/zeros /dev/vg0/outside
