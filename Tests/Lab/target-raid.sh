# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: mirrored and striped volumes as targets: how they are rounded, cut and grown; their parts are no targets
# disks: 80M 80M 80M
modprobe dm-raid
volume_group vg0 ${disk}a ${disk}b ${disk}c
size() { blockdev --getsize64 "$1"; }
# is VOLUME MIB: so large, with the image in it and zeros behind it.
is() {
    [ "$(size "/dev/vg0/$1")" = $(($2 << 20)) ] || fail "$1 has $(size "/dev/vg0/$1") bytes"
    bytes=$(wc -c </tmp/image)
    cmp -n "$bytes" /tmp/image "/dev/vg0/$1" || fail "$1 is no replica"
    tail -c +$((bytes + 1)) "/dev/vg0/$1" | cmp -n $((($2 << 20) - bytes)) - /dev/zero || fail 'no zeros'
}
# grows VOLUME MIB MIB MIB: sizes for images of 11 MB, 13 MB and 5 MB.
grows() {
    for image in "11000000 $2" "13000000 $3" "5000000 $4"; do
        random "${image% *}" >/tmp/image
        expect 0 blkferry --overwrite --size-policy resize --shrink /tmp/image "/dev/vg0/$1"
        is "$1" "${image#* }"
    done
}

step 'raid1: a whole copy on each disk'
lvcreate -qq -y --type raid1 -m 1 -L 12M -n mirror vg0
grows mirror 12 16 8

step 'raid5: two extents with data, one with parity'
lvcreate -qq -y --type raid5 -i 2 -L 8M -n parity vg0
grows parity 16 16 8

step 'their parts are no targets, here or on a server'
random 1000000 >/tmp/image
for part in mirror_rimage_0 mirror_rmeta_0; do
    expect 2 blkferry --overwrite --size-policy prefix /tmp/image "/dev/mapper/vg0-$part"
    says 'it is held by device-mapper device vg0-mirror'
done
mkfs.ext4 -q -F /dev/vg0/mirror
sync
uuid=$(blkid -p -s UUID -o value /dev/vg0/mirror)
expect 0 blkferry "UUID=$uuid" /tmp/copy
same /dev/vg0/mirror /tmp/copy
part=$(lvs --all --noheadings -o lv_uuid vg0/mirror_rimage_0 | tr -d ' ')
expect 3 blkferry --overwrite "LVUUID=$part" /tmp/copy
rm /tmp/copy
serve --export vg0:rw,create
here=http://127.0.0.1:8080/dev/vg0
for name in mirror_rimage_0 mirror_rmeta_0 snapshot1 x_rimage_0; do
    expect 3 blkferry $here/$name /tmp/copy
    expect 3 blkferry --create /tmp/image $here/$name
done
kill $server
wait $server || fail "the server ended with $?"
