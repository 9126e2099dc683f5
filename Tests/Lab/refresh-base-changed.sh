# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: refresh does not use a base of a thin volume that was changed since blkferry made it
# seconds: 40
# disks: 200M 64M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y --type thin-pool -L 150M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n root vg0
lvcreate -qq -y -L 32M -n backup vg1
# The end stays empty.
fill /dev/vg0/root 0 28
expect 0 blkferry refresh vg0/root vg1/backup

base() { lvs --noheadings -o lv_name vg0 | tr -d ' ' | grep blkferry; }
# opened: makes the base writable, as $path; closed: undoes that.
opened() {
    base=$(base)
    path=/dev/vg0/$base
    lvchange -qq --permission rw "vg0/$base"
}
closed() { lvchange -qq --permission r "vg0/$base"; }
# refreshed: the next refresh detects the change, and the one after that needs no full comparison.
refreshed() {
    expect 0 blkferry refresh vg0/root vg1/backup
    says 'another program has changed it since blkferry made it'
    same /dev/vg0/root /dev/vg1/backup
    expect 0 blkferry refresh -v vg0/root vg1/backup
    says ' 0 of 33554432 bytes have changed since'
}

step 'discarded in the base, and in the source'
opened
blkdiscard -o 4M -l 4M "$path"
closed
blkdiscard -o 4M -l 4M /dev/vg0/root
refreshed

step 'as much is written elsewhere'
opened
blkdiscard -o 12M -l 1M "$path"
dd if=/dev/urandom of="$path" bs=1M seek=30 count=1 oflag=direct conv=notrunc 2>/dev/null
closed
blkdiscard -o 12M -l 1M /dev/vg0/root
refreshed

step 'written where it has blocks'
opened
dd if=/dev/urandom of="$path" bs=4k seek=5000 count=1 oflag=direct conv=notrunc 2>/dev/null
closed
refreshed

step 'past LVM, through another device of the same thin volume'
base=$(base)
id=$(lvs --noheadings -o thin_id "vg0/$base" | tr -d ' ')
lvchange -qq --activate n "vg0/$base"
echo "0 65536 thin /dev/mapper/vg0-pool-tpool $id" | mapped other
blkdiscard -o 16M -l 1M /dev/mapper/other
dmsetup remove --noudevsync other
lvchange -qq --activate y "vg0/$base"
blkdiscard -o 16M -l 1M /dev/vg0/root
refreshed

step 'it can be written to'
opened
expect 0 blkferry refresh vg0/root vg1/backup
says 'another program has changed it since blkferry made it'
same /dev/vg0/root /dev/vg1/backup

step 'only the source has discarded: the map has it'
blkdiscard -o 20M -l 1M /dev/vg0/root
expect 0 blkferry refresh -v vg0/root vg1/backup
says ' 1048576 of 33554432 bytes have changed since'
same /dev/vg0/root /dev/vg1/backup
