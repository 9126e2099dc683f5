# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: targets of kinds without a change counter, changed in every way: each run falls back to a full comparison
# when: named
# seconds: 150
# disks: 100M 16M 20M 100M
. /counters.sh
for module in md-mod linear raid0 raid1 aes_generic cbc ecb hmac sha256_generic; do modprobe -q $module || true; done
modprobe dm-crypt
for number in 1 2; do truncate -s 20M /tmp/member$number; done
members="$(losetup -f --show /tmp/member1) $(losetup -f --show /tmp/member2)"
source_group
writes="512 4096 buffered held mmap zero replay"

# array LEVEL: /dev/md7.
array() {
    # shellcheck disable=SC2086 # two of them
    mdadm --create /dev/md7 --level="$1" --raid-devices=2 --metadata=1.2 --run --force $members </dev/null
    node /dev/md7
}
# array_ends: removes the array and its device file.
array_ends() {
    mdadm --stop /dev/md7
    rm -f /dev/md7
}
# shellcheck disable=SC2086 # several
for level in linear 0 1; do
    step "md $level, and devices above it"
    array $level
    cells md md-$level /dev/md7 none $writes discard
    is 0
    echo 0 32768 linear /dev/md7 0 | mapped table
    below=/dev/md7
    start=0
    cells table linear-on-md-$level /dev/mapper/table none below 512 discard
    is 0
    dmsetup remove --noudevsync table
    array_ends
done

step 'tables'
echo 0 32768 linear ${disk}c 0 | mapped table
below=${disk}c
start=0
# shellcheck disable=SC2086 # several
{
    cells table dm-linear /dev/mapper/table none below replace $writes discard
    is 0
    dmsetup remove --noudevsync table
    key=$(printf '%032d' 7)
    echo "0 32768 crypt aes-ecb $key 0 ${disk}c 0" | mapped crypt
    cells table dm-crypt /dev/mapper/crypt none below $writes
    is 0
    dmsetup remove --noudevsync crypt
}

step 'loop devices and images without a change counter'
truncate -s 16M /tmp/backing
loop=$(losetup -f --show /tmp/backing)
cells loop loop-on-tmpfs $loop none 512 mmap discard
is 0
losetup -d $loop
loop=$(losetup -f --show ${disk}b)
below=${disk}b
cells loop loop-on-disk $loop none below 512
is 0
losetup -d $loop
truncate -s 16M /tmp/image
cells image image-on-tmpfs /tmp/image none buffered mmap discard
is 0
