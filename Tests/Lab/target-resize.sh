# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a logical volume as target grows to whole extents, is cut only with --shrink, and its tail is zeros
# seconds: 35
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y -L 32M -n source vg0
lvcreate -qq -y -L 100M -n old vg0
fill /dev/vg0/old 0 100
lvremove -qq -y vg0/old
lvcreate -qq -y -L 8M -n target vg0
fill /dev/vg0/source 0 32
size() { blockdev --getsize64 "$1"; }
# tail FILE TARGET: beyond the replica are zeros.
tail_is_zero() {
    bytes=$(wc -c <"$1")
    tail -c +$((bytes + 1)) "$2" | cmp -n $(($(size "$2") - bytes)) - /dev/zero || fail "$2 has no zeros beyond $1"
}

step 'refused without the policy; a dry run does nothing'
expect 2 blkferry /dev/vg0/source /dev/vg0/target
expect 0 blkferry --dry-run --size-policy resize /dev/vg0/source /dev/vg0/target
[ "$(size /dev/vg0/target)" = 8388608 ] || fail 'it has grown in a dry run'

step 'grown, onto old data of another volume'
expect 0 blkferry --size-policy resize /dev/vg0/source /dev/vg0/target
[ "$(size /dev/vg0/target)" = 33554432 ] || fail 'it has another size'
same /dev/vg0/source /dev/vg0/target

step 'rounded up to whole extents, the tail is zeros'
random 37000123 >/tmp/image
expect 0 blkferry --overwrite --size-policy resize /tmp/image /dev/vg0/target
[ "$(size /dev/vg0/target)" = 37748736 ] || fail 'it has another size'
cmp -n 37000123 /tmp/image /dev/vg0/target
tail_is_zero /tmp/image /dev/vg0/target

step 'again: it fits, and the tail is kept zeros'
expect 0 blkferry --size-policy resize /tmp/image /dev/vg0/target
says 'different   0 bytes'
dd if=/dev/urandom of=/dev/vg0/target bs=4k seek=9200 count=10 oflag=direct conv=notrunc 2>/dev/null
expect 0 blkferry --size-policy resize /tmp/image /dev/vg0/target
tail_is_zero /tmp/image /dev/vg0/target

step 'cut only with --shrink'
truncate -s 10000000 /tmp/image
expect 2 blkferry --size-policy resize /tmp/image /dev/vg0/target
says '--shrink'
expect 0 blkferry --dry-run --size-policy resize --shrink /tmp/image /dev/vg0/target
[ "$(size /dev/vg0/target)" = 37748736 ] || fail 'it was cut'
expect 0 blkferry --size-policy resize --shrink /tmp/image /dev/vg0/target
[ "$(size /dev/vg0/target)" = 12582912 ] || fail 'it has another size'
cmp -n 10000000 /tmp/image /dev/vg0/target
tail_is_zero /tmp/image /dev/vg0/target
expect 64 blkferry --shrink /tmp/image /dev/vg0/target

step 'thin'
lvcreate -qq -y --type thin-pool -L 40M -n pool vg0
lvcreate -qq -y -V 4M --thinpool pool -n thin vg0
expect 0 blkferry --size-policy resize /tmp/image /dev/vg0/thin
[ "$(size /dev/vg0/thin)" = 12582912 ] || fail 'it has another size'
cmp -n 10000000 /tmp/image /dev/vg0/thin
tail_is_zero /tmp/image /dev/vg0/thin

step 'striped: an extent for each stripe'
lvcreate -qq -y -i 2 -L 8M -n striped vg0
truncate -s 20000000 /tmp/image
expect 0 blkferry --size-policy resize /tmp/image /dev/vg0/striped
[ "$(size /dev/vg0/striped)" = 25165824 ] || fail 'it has another size'
tail_is_zero /tmp/image /dev/vg0/striped
expect 0 blkferry --size-policy resize /tmp/image /dev/vg0/striped

step 'the source cannot be read: the snapshot has the old content behind it'
lvcreate -qq -y -V 8M --thinpool pool -n tail vg0
fill /dev/vg0/tail 0 8
before=$(digest /dev/vg0/tail)
echo '0 10240 error' | mapped bad
expect 3 blkferry --overwrite --size-policy resize --snapshot-target way /dev/mapper/bad /dev/vg0/tail
lvchange -qq -an vg0/tail
lvconvert -qq -y --merge vg0/way
lvchange -qq -ay vg0/tail
[ "$(digest /dev/vg0/tail)" = "$before" ] || fail 'it is not what it was'
lvremove -qq -y vg0/tail

step 'no room, snapshots, no volume, in use: refused, nothing is changed'
truncate -s 1G /tmp/large
expect 2 blkferry --size-policy resize /tmp/large /dev/vg0/target
says 'bytes that are free'
lvcreate -qq -y -s -L 8M -n snap vg0/target
expect 2 blkferry --size-policy resize /dev/vg0/source /dev/vg0/target
says 'as long as it has snapshots'
expect 2 blkferry --overwrite --size-policy resize --shrink /dev/vg0/target ${disk}c
says 'cannot be resized'
mkfs.ext4 -q -F /dev/vg0/thin
mount /dev/vg0/thin /mnt
expect 2 blkferry --overwrite --size-policy resize /dev/vg0/source /dev/vg0/thin
says 'mounted on /mnt'
umount /mnt
[ "$(size /dev/vg0/thin)" = 12582912 ] || fail 'it has grown'
[ "$(size /dev/vg0/target)" = 12582912 ] || fail 'it has grown'
