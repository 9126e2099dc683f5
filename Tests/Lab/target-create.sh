# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: --create makes the logical volume that is missing, linear or thin, and leaves none behind when it fails
# seconds: 40
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y -L 30M -n source vg0
fill /dev/vg0/source 0 30
size() { blockdev --getsize64 "$1"; }
missing() { ! lvs "$1" >/dev/null 2>&1 || fail "$1 is there"; }

step 'not without the option; a dry run makes nothing'
expect 2 blkferry /dev/vg0/source vg1/backup
says 'it is no active logical volume'
expect 3 blkferry /dev/vg0/source /dev/vg1/backup
expect 0 blkferry --dry-run --create /dev/vg0/source vg1/backup
says 'would be created'
missing vg1/backup

step 'a directory with the name of the group gets no file instead of a volume'
mkdir -p /tmp/w/vg1 /tmp/w/images
cd /tmp/w
lvcreate -qq -y -L 8M -n idle vg1
lvchange -an vg1/idle
for name in backup idle backup@pool -n; do
    expect 2 blkferry /dev/vg0/source "vg1/$name"
    says 'it is no active logical volume'
    says "or the file write ./vg1/$name"
done
expect 2 blkferry --create /dev/vg0/source vg1/idle
says 'not active'
for name in -n x@-pool; do
    expect 3 blkferry --create /dev/vg0/source "vg1/$name"
    says 'no logical volume can have that name'
done
[ -z "$(ls vg1)" ] || fail "$(ls vg1)"
expect 0 blkferry /dev/vg0/source ./vg1/backup
expect 0 blkferry /dev/vg0/source vg1/backup
same /dev/vg0/source vg1/backup
expect 2 blkferry --create /dev/vg0/source vg1/backup
says 'there is a file of that name'
missing vg1/backup
cp vg1/backup vg1/idle
expect 2 blkferry /dev/vg0/source vg1/idle
says 'a logical volume, which is not active'
expect 2 blkferry vg1/idle /tmp/copy
expect 0 blkferry ./vg1/idle /tmp/copy
expect 0 blkferry /dev/vg0/source images/disk
lvremove -qq -y vg1/idle
cd /
rm -r /tmp/w

step 'linear, where an ext4 was before'
lvcreate -qq -y -L 60M -n old vg1
mkfs.ext4 -q -F /dev/vg1/old
lvremove -qq -y vg1/old
expect 0 blkferry --create /dev/vg0/source vg1/backup
same /dev/vg0/source /dev/vg1/backup
[ "$(size /dev/vg1/backup)" = 33554432 ] || fail 'it has another size'
[ "$(lvs --noheadings -o segtype vg1/backup | tr -d ' ')" = linear ] || fail 'it is not linear'

step 'an existing volume: used like any target, grown when the source has grown'
fill /dev/vg0/source 3 1
expect 0 blkferry --create /dev/vg0/source /dev/vg1/backup
same /dev/vg0/source /dev/vg1/backup
lvextend -qq -L 40M vg0/source
expect 0 blkferry --create /dev/vg0/source /dev/vg1/backup
same /dev/vg0/source /dev/vg1/backup

step 'thin'
lvcreate -qq -y --type thin-pool -L 40M -n pool vg1
dd if=/dev/zero of=/dev/vg0/source bs=1M count=20 oflag=direct conv=notrunc 2>/dev/null
expect 0 blkferry --create /dev/vg0/source vg1/thin@pool
same /dev/vg0/source /dev/vg1/thin
[ "$(lvs --noheadings -o pool_lv vg1/thin | tr -d ' ')" = pool ] || fail 'it is not in the pool'
expect 0 blkferry --create /dev/vg0/source vg1/thin@pool
says 'different   0 bytes'

step 'nothing to write: the volume is made all the same'
lvcreate -qq -y -L 8M -n zeros vg0
dd if=/dev/zero of=/dev/vg0/zeros bs=1M count=8 oflag=direct 2>/dev/null
expect 0 blkferry --create /dev/vg0/zeros vg1/empty@pool
same /dev/vg0/zeros /dev/vg1/empty

step 'no such group or pool, no room, a name that is taken'
expect 3 blkferry --create /dev/vg0/source vg9/backup
says vg9
expect 3 blkferry --create /dev/vg0/source vg1/more@nopool
says 'no thin pool'
truncate -s 1G /tmp/large
expect 2 blkferry --create /tmp/large vg1/more
says 'bytes that are free'
expect 2 blkferry --dry-run --create /tmp/large vg1/more
missing vg1/more
lvchange -an vg1/empty
expect 2 blkferry --create /dev/vg0/zeros vg1/empty
says 'not active'
expect 2 blkferry --overwrite --create /dev/vg0/source vg1/pool

step 'a source that cannot be read: the run removes the volume'
size=$(blockdev --getsz /dev/vg0/zeros)
echo "0 $size error" | mapped bad
expect 3 blkferry --create /dev/mapper/bad vg1/failed
missing vg1/failed
expect 64 blkferry --create --benchmark 2 /dev/vg0/source vg1/failed
missing vg1/failed

step 'old data of other volumes makes no later run refuse the volume'
# stale: where the next volume is made there is an ISO 9660, and no zeros.
stale() {
    lvcreate -qq -y --wipesignatures n -L 40M -n old vg1
    fill /dev/vg1/old 0 40
    printf '\001CD001\001' | dd of=/dev/vg1/old bs=1 seek=32768 conv=notrunc 2>/dev/null
    printf '\377CD001\001' | dd of=/dev/vg1/old bs=1 seek=34816 conv=notrunc 2>/dev/null
    sync
    [ "$(blkid -p -s TYPE -o value /dev/vg1/old)" = iso9660 ] || fail 'no ISO 9660'
    lvremove -qq -y vg1/old
}
lvremove -qq -y vg1/backup
stale
# No multiple of an extent: what lies beyond is made zeros.
echo '0 20000 error' | mapped worse
expect 3 blkferry --create /dev/mapper/worse vg1/failed
missing vg1/failed
stale
blkferry --create --quiet /dev/vg0/source vg1/killed &
run=$!
while [ ! -b /dev/mapper/vg1-killed ]; do :; done
kill -KILL $run
wait $run || true
expect 0 blkferry --create /dev/vg0/source vg1/killed
same /dev/vg0/source /dev/vg1/killed
