# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a thin source is read where it is mapped, the rest becomes zeros, and what is in doubt is read
# seconds: 120
# disks: 560M 420M
volume_group vg0 ${disk}a
images ${disk}b
lvcreate -qq -y --type thin-pool -L 340M -n pool vg0

# thin POOL SIZE NAME: a thin volume without mappings. lvcreate may have zeroed its first sectors.
thin() {
    lvcreate -qq -y -V "$2" --thinpool "$1" -n "$3" vg0
    blkdiscard "/dev/vg0/$3"
}

# reads COMMAND...: runs it, and sets $read to the KiB that were read of the thin volume.
reads() {
    before=$(sectors_read /dev/vg0/thin)
    expect 0 "$@"
    read=$((($(sectors_read /dev/vg0/thin) - before) / 2))
    echo "$read KiB of the source were read"
}
# less KIB: so much was read at most.
less() { [ "$read" -le "$1" ] || fail "$read KiB were read, more than $1"; }
# more KIB: so much was read at least.
more() { [ "$read" -ge "$1" ] || fail "$read KiB were read, less than $1"; }
unmapped='bytes are mapped; the others are zeros'

step '10 GiB with 300 MiB of data: at most 320 MiB are read'
thin pool 10G thin
fill /dev/vg0/thin 0 200
fill /dev/vg0/thin 5000 60
fill /dev/vg0/thin 10200 40
reads blkferry -v /dev/vg0/thin /images/replica
says "314572800 of 10737418240 $unmapped"
less 327680
more 307200
same /dev/vg0/thin /images/replica

step 'and again, to the same replica; a comparison as well'
reads blkferry -v /dev/vg0/thin /images/replica
less 327680
reads blkferry verify /dev/vg0/thin /images/replica
less 327680
rm /images/replica
lvremove -qq -y vg0/thin

step 'a target that holds something else where nothing is mapped: zeros'
thin pool 64M thin
lvcreate -qq -y -L 64M -n linear vg0
fill /dev/vg0/thin 8 8
fill /dev/vg0/linear 0 64
reads blkferry -v /dev/vg0/thin /dev/vg0/linear
says "8388608 of 67108864 $unmapped"
less 12288
same /dev/vg0/thin /dev/vg0/linear
fill /dev/vg0/linear 40 1
expect 1 blkferry verify /dev/vg0/thin /dev/vg0/linear
expect 1 blkferry --dry-run --exit-code /dev/vg0/thin /dev/vg0/linear
reads blkferry --verify /dev/vg0/thin /dev/vg0/linear
less 24576
same /dev/vg0/thin /dev/vg0/linear

step 'everything is written, without reading the target'
fill /dev/vg0/linear 0 64
reads blkferry --whole-file /dev/vg0/thin /dev/vg0/linear
less 12288
same /dev/vg0/thin /dev/vg0/linear

step 'to a server'
fill /dev/vg0/linear 30 4
serve --export /dev/vg0/linear:rw --export /dev/vg0/thin
reads blkferry /dev/vg0/thin http://127.0.0.1:8080/dev/vg0/linear
less 12288
same /dev/vg0/thin /dev/vg0/linear
expect 0 blkferry http://127.0.0.1:8080/dev/vg0/thin /images/pulled
same /dev/vg0/thin /images/pulled
kill "$server"
wait "$server" || fail "the server ended with $?"

step 'discarded chunks, and what is only in the page cache'
blkdiscard -o 8M -l 4M /dev/vg0/thin
exec 9<>/dev/vg0/thin
dd if=/dev/urandom of=/dev/vg0/thin bs=4k seek=5000 count=1 conv=notrunc 2>/dev/null
reads blkferry -v /dev/vg0/thin /dev/vg0/linear
exec 9>&-
says "4259840 of 67108864 $unmapped"
same /dev/vg0/thin /dev/vg0/linear

step 'the snapshot of a first refresh has the mappings of its origin'
lvcreate -qq -y -L 64M -n other vg0
fill /dev/vg0/other 0 64
expect 0 blkferry refresh -v vg0/thin /dev/vg0/other
says "4259840 of 67108864 $unmapped"
same /dev/vg0/thin /dev/vg0/other
fill /dev/vg0/thin 20 1
expect 0 blkferry refresh -v vg0/thin /dev/vg0/other
says '1048576 of 67108864 bytes have changed since'
same /dev/vg0/thin /dev/vg0/other

step 'a volume that is mapped completely, and one that is empty'
thin pool 8M full
lvcreate -qq -y -L 8M -n small vg0
fill /dev/vg0/small 0 8
expect 0 blkferry -v /dev/vg0/full /dev/vg0/small
says "0 of 8388608 $unmapped"
same /dev/vg0/full /dev/vg0/small
fill /dev/vg0/full 0 8
expect 0 blkferry -v /dev/vg0/full /dev/vg0/small
case $output in *mapped*) fail 'a metadata snapshot was not needed' ;; esac
same /dev/vg0/full /dev/vg0/small

step 'another program holds the metadata snapshot of the pool: everything is read'
dmsetup message vg0-pool-tpool 0 reserve_metadata_snap
fill /dev/vg0/linear 50 1
reads blkferry /dev/vg0/thin /dev/vg0/linear
more 65536
same /dev/vg0/thin /dev/vg0/linear
case $output in *metadata*) fail 'a word too many' ;; esac
expect 0 blkferry -v /dev/vg0/thin /dev/vg0/linear
says 'all of it is read, as its mappings are unknown: vg0-pool-tpool'
says 'another program holds its metadata snapshot'
dmsetup message vg0-pool-tpool 0 release_metadata_snap

step 'an external origin is not zeros'
lvremove -qq -y vg0/small
lvcreate -qq -y -L 8M -n base vg0
fill /dev/vg0/base 0 8
lvchange -qq -an -pr vg0/base
lvcreate -qq -y -s --thinpool vg0/pool -kn -n outside vg0/base
fill /dev/vg0/outside 2 1
expect 0 blkferry -v /dev/vg0/outside /images/outside
says 'it has an external origin'
same /dev/vg0/outside /images/outside

step 'a pool that does not zero its chunks'
lvremove -qq -y vg0/pool
lvcreate -qq -y --type thin-pool -Zn -c 64k -L 64M -n raw vg0
thin raw 64M thin
fill /dev/vg0/thin 3 2
fill /dev/vg0/linear 0 64
reads blkferry -v /dev/vg0/thin /dev/vg0/linear
says "2097152 of 67108864 $unmapped"
less 6144
same /dev/vg0/thin /dev/vg0/linear

step 'no metadata snapshot is left behind'
[ "$(dmsetup status vg0-raw-tpool | cut -d ' ' -f 7)" = - ] || fail "$(dmsetup status vg0-raw-tpool)"
