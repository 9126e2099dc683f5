# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: volumes on md arrays and on dm-crypt as targets, changed in several ways: the next run detects it
# when: named
# seconds: 90
# disks: 100M 60M 60M 60M
. /counters.sh
for module in md-mod linear raid0 raid1 aes_generic cbc ecb hmac sha256_generic; do modprobe -q $module || true; done
modprobe dm-crypt
source_group

# volume_on GROUP DISK: a linear volume above it, changed.
volume_on() {
    volume_group "$1" "$2"
    lvcreate -qq -y -L 16M -n linear "$1"
    cells volume "linear-on-$1" "/dev/$1/linear" none resize 512 held zero replace
    is 1
    vgremove -qq -y -f "$1"
}
for level in linear 0 1; do
    mdadm --create /dev/md7 --level=$level --raid-devices=2 --metadata=1.2 --run --force ${disk}b ${disk}c </dev/null
    node /dev/md7
    volume_on md-$level /dev/md7
    mdadm --stop /dev/md7
    rm -f /dev/md7
    mdadm --zero-superblock ${disk}b ${disk}c
done
key=$(printf '%032d' 7)
echo "0 $(blockdev --getsz ${disk}d) crypt aes-ecb $key 0 ${disk}d 0" | dmsetup create --noudevrules --noudevsync --uuid CRYPT-PLAIN-lower lower
dmsetup mknodes lower
volume_on crypt /dev/mapper/lower
