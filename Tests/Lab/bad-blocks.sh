# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: sources and targets with bad blocks: status 3, or 6 with --skip-unreadable
modprobe dm-flakey
fill ${disk}a 0 64
# Sectors 20480 to 20487 of the source cannot be read: 4 KiB at 10 MiB.
mapped bad <<EOF
0 20480 linear ${disk}a 0
20480 8 error
20488 110584 linear ${disk}a 20488
EOF
blockdev --setra 0 /dev/mapper/bad
truncate -s 64M /tmp/target

step 'an unreadable source'
expect 3 blkferry /dev/mapper/bad /tmp/target
says 'read at'
expect 6 blkferry --skip-unreadable --json /dev/mapper/bad /tmp/target
says '"readErrors":{"ranges":[{"length":4096,"offset":10485760}],"rewritten":0,"unreadable":4096}'
head -c 10485760 ${disk}a | cmp -n 10485760 - /tmp/target
dd if=/tmp/target bs=4k skip=2560 count=1 2>/dev/null | cmp -n 4096 - /dev/zero
tail -c +10489857 /tmp/target >/tmp/rest
dd if=${disk}a bs=4k skip=2561 count=13823 2>/dev/null | cmp - /tmp/rest

step 'a target that fails in one place: the others are written'
mapped worse <<EOF
0 40960 linear ${disk}b 0
40960 8 error
40968 90104 linear ${disk}b 40968
EOF
truncate -s 64M /tmp/source
dd if=${disk}a of=/tmp/source bs=1M count=64 conv=notrunc 2>/dev/null
expect 3 blkferry --whole-file --overwrite /tmp/source /dev/mapper/worse
says 'write at'
# The blocks behind the bad sectors were copied.
dd if=${disk}a bs=4k skip=5121 count=11263 2>/dev/null >/tmp/rest
dd if=${disk}b bs=4k skip=5121 count=11263 iflag=direct 2>/dev/null | cmp - /tmp/rest

step 'a source whose end has failed, and is repaired'
mapped flaky <<EOF
0 122880 linear ${disk}a 0
122880 8192 flakey ${disk}a 122880 0 1
EOF
expect 3 blkferry --overwrite /dev/mapper/flaky /tmp/target
expect 6 blkferry --overwrite --skip-unreadable --json /dev/mapper/flaky /tmp/target
says '"readErrors":{"ranges":[{"length":4194304,"offset":62914560}]'
expect 0 blkferry --overwrite --size-policy resize ${disk}a /tmp/target
same ${disk}a /tmp/target

step 'a target that takes no writes, and one that loses them'
mapped stuck <<EOF
0 131072 flakey ${disk}c 0 0 1 1 error_writes
EOF
expect 3 blkferry /tmp/source /dev/mapper/stuck
says 'write at'
mapped lossy <<EOF
0 131072 flakey ${disk}d 0 0 1 1 drop_writes
EOF
expect 1 blkferry --verify /tmp/source /dev/mapper/lossy
says 'read back differently'
