# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: --since between snapshots in any order, written to or not, and sources without a map
# seconds: 75
# disks: 300M 64M 64M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y -L 32M -n root vg0
lvcreate -qq -y -L 32M -n target vg1
fill /dev/vg0/root 0 32
# classic NAME: a classic snapshot of the volume.
classic() { lvcreate -qq -y -s -L 16M -n "$1" vg0/root; }
# since BASE SOURCE TEXT: the target becomes the replica of the source, and the output has TEXT.
since() {
    expect 0 blkferry -v --since "$1" "vg0/$2" vg1/target
    says "$3"
    same "/dev/vg0/$2" /dev/vg1/target
}

step 'classic: forwards, and back'
classic sunday
fill /dev/vg0/root 20 1
classic monday
fill /dev/vg0/root 25 1
since sunday monday 'full comparison'
since monday sunday '2097152 of 33554432 bytes have changed since'
since sunday monday '2097152 of 33554432 bytes have changed since'

step 'a snapshot that was written to'
classic tuesday
dd if=/dev/urandom of=/dev/vg0/tuesday bs=4k seek=5000 count=3 oflag=direct conv=notrunc 2>/dev/null
since monday tuesday 'bytes have changed since'

step 'a dry run reads no more than that either, and finds the same'
expect 1 blkferry -v --dry-run --exit-code --since tuesday vg0/sunday vg1/target
says 'bytes have changed since'
expect 0 blkferry -v --dry-run --exit-code --since tuesday vg0/tuesday vg1/target
says 'full comparison'

step 'a volume that a snapshot is being merged into has no map'
lvremove -qq -f vg0/tuesday
fill /dev/vg0/root 2 8
since sunday monday 'full comparison'
echo 1 >/sys/module/dm_snapshot/parameters/snapshot_copy_throttle
lvconvert -qq -y --merge --background vg0/sunday
expect 0 blkferry -v --since monday vg0/root vg1/target
# Unless it was over before; the replica has to be right then as well.
case $output in
    *'its device is of type snapshot-merge'*) echo 'while it is merged' ;;
    *) echo 'it was merged already' ;;
esac
same /dev/vg0/root /dev/vg1/target
echo 100 >/sys/module/dm_snapshot/parameters/snapshot_copy_throttle

step 'a classic snapshot and a thin one of the same volume have no map'
lvcreate -qq -y --type thin-pool -L 80M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
fill /dev/vg0/thin 0 32
lvcreate -qq -y -s -kn -n older vg0/thin
fill /dev/vg0/thin 20 1
lvcreate -qq -y -s -L 16M -n mixed vg0/thin
expect 0 blkferry -v --since older vg0/mixed vg1/target
expect 0 blkferry -v --since mixed vg0/older vg1/target
says 'it has nothing in common with vg0/older'
same /dev/vg0/older /dev/vg1/target

step 'discarded in the base and in the volume: neither has the chunk'
lvremove -qq -f vg0/mixed
lvcreate -qq -y -s -kn -n base vg0/thin
since base base 'full comparison'
for name in base thin; do blkdiscard -o 8M -l 4M /dev/vg0/$name; done
lvcreate -qq -y -s -kn -n next vg0/thin
since base next '4194304 of 33554432 bytes have changed since'

step 'a snapshot that another program has open for writing, and a read-only one'
fill /dev/vg0/thin 30 1
lvcreate -qq -y -s -kn -n last vg0/thin
exec 9<>/dev/vg0/last
since next last 'it is in use, and may change during the run'
exec 9>&-
fill /dev/vg0/thin 29 1
lvcreate -qq -y -s -kn -pr -n readonly vg0/thin
exec 9</dev/vg0/readonly
since last readonly 'bytes have changed since'
exec 9>&-

step 'an image whose time of modification was set back'
mkfs.ext4 -q -F -I 256 ${disk}c
mount ${disk}c /mnt
expect 0 blkferry refresh vg0/thin /mnt/image
touch -r /mnt/image /tmp/reference
dd if=/dev/urandom of=/mnt/image bs=4k seek=2000 count=1 conv=notrunc 2>/dev/null
touch -r /tmp/reference /mnt/image
expect 0 blkferry refresh vg0/thin /mnt/image
says 'another program may have written to it'
same /dev/vg0/thin /mnt/image
umount /mnt

step 'an image on a file system that counts whole seconds'
mkfs.ext4 -q -F -I 128 ${disk}c
mount ${disk}c /mnt
expect 0 blkferry refresh vg0/thin /mnt/image
# In the same second, if the run has not waited for the next one.
dd if=/dev/urandom of=/mnt/image bs=4k seek=2000 count=1 conv=notrunc 2>/dev/null
expect 0 blkferry refresh vg0/thin /mnt/image
says 'full comparison'
same /dev/vg0/thin /mnt/image
umount /mnt

step 'a snapshot that is missing: no image is created'
for base in none root; do
    expect 3 blkferry --since $base vg0/thin /tmp/new
    [ ! -e /tmp/new ] || fail 'an image was created'
done

step 'a file that is named like a volume; a volume that is not active'
cd /tmp
mkdir vg0
echo precious >vg0/thin
truncate -s 32M /tmp/image
expect 2 blkferry --overwrite /tmp/image vg0/thin
says 'there is a logical volume and a file of that name'
[ "$(cat vg0/thin)" = precious ] || fail 'the file was written to'
rm -r vg0
lvcreate -qq -y -L 4M -n idle vg0
lvchange -qq -an vg0/idle
expect 3 blkferry sync --snapshot vg0/idle /tmp/other
says 'it is not active'
says 'lvchange --activate y vg0/idle'
