# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: the change map of a classic snapshot's origin has all later writes, until the snapshot overflows
# programs: ChangeMapProbe
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y -L 64M -n root vg0
fill /dev/vg0/root 0 64

# is LINES: the output was LINES and nothing else.
# shellcheck disable=SC2154 # expect sets it
is() { [ "$output" = "$1" ] || fail "expected: $1"; }
# changes STATUS SNAPSHOT
changes() { expect "$1" ChangeMapProbe classic vg0 "$2" "/dev/vg0/$2" /dev/vg0/root; }
# write SEEK COUNT: random blocks of 4 KiB
write() { dd if=/dev/urandom of=/dev/vg0/root bs=4k seek="$1" count="$2" oflag=direct conv=notrunc 2>/dev/null; }

lvcreate -qq -y -s -L 24M -c 4k -n snap vg0/root
lvcreate -qq -y -s -L 32M -c 64k -n wide vg0/root
step 'nothing has changed'
changes 0 snap
is ''

step 'chunks of 4 KiB, and of 64 KiB'
write 3 1
write 100 2
write 16383 1
changes 0 snap
is '12 4
400 8
65532 4'
changes 0 wide
is '0 64
384 64
65472 64'

step 'thousands of chunks: many areas of 256 entries'
write 4000 2048
write 8000 300
block=1000
wanted='12 4
400 8'
while [ $block -lt 1040 ]; do
    write $block 1
    wanted="$wanted
$((block * 4)) 4"
    block=$((block + 2))
done
changes 0 snap
is "$wanted
16000 8192
32000 1200
65532 4"

step 'overflowed: no map'
write 0 8192
dmsetup status vg0-snap
changes 2 snap
says 'no change map'
dmsetup status vg0-snap | grep -q Invalid || fail 'it has not overflowed'

step 'no classic snapshot'
expect 2 ChangeMapProbe classic vg0 root /dev/vg0/root /dev/vg0/root
says 'no change map'
