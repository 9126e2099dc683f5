# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a disk with sectors of 4096 bytes beside one of 512
modprobe sd_mod
modprobe scsi_debug dev_size_mb=64 sector_size=4096 delay=0
becomes [ -b /dev/sda ]
large=/dev/sda
[ "$(blockdev --getss "$large")" = 4096 ] || fail "$large has other sectors"
fill ${disk}a 0 64
truncate -s 64M /tmp/image
dd if=${disk}a of=/tmp/image bs=1M count=64 conv=notrunc 2>/dev/null

step 'from 512 to 4096 and back'
expect 0 blkferry /tmp/image "$large"
same "$large" /tmp/image
dd if=/dev/urandom of="$large" bs=4096 count=3 seek=700 oflag=direct 2>/dev/null
expect 0 blkferry "$large" /tmp/image
same "$large" /tmp/image
expect 0 blkferry --size-policy prefix "$large" ${disk}a
same "$large" ${disk}a

step 'a partition table would mean other places'
sgdisk -n 1:0:+10M ${disk}b >/dev/null
expect 2 blkferry --size-policy prefix "$large" ${disk}b
head -c 67108864 ${disk}b >/tmp/table
expect 2 blkferry /tmp/table "$large"
says overwrite
