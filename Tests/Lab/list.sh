# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: list shows group, volume, pool, origin and fill; a UUID of an origin and its snapshots is refused
# disks: 256M 256M 128M
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y --type thin-pool -L 100M -n pool vg0
lvcreate -qq -y -V 64M --thinpool pool -n thin-one vg0
lvcreate -qq -y -L 64M -n linear vg0
fill /dev/vg0/thin-one 0 32
mkfs.ext4 -q -F /dev/vg0/linear
sync
lvcreate -qq -y -s -kn -n monday vg0/thin-one
lvcreate -qq -y -s -L 16M -n classic vg0/linear
lvcreate -qq -y -s -L 4M -n small vg0/linear
fill /dev/vg0/linear 50 6

# row NAME WORD...: the line of a volume has these words.
row() {
    line=$(echo "$output" | grep "/dev/mapper/vg0-$1 ") || fail "no line of $1"
    shift
    for word in "$@"; do
        case " $line " in *" $word "*) ;; *) fail "no $word in: $line" ;; esac
    done
}

step 'as a table, and as JSON'
expect 0 blkferry list
row thin--one vg0 thin-one pool 50.00
row monday vg0 monday pool thin-one 50.00
row linear vg0 linear ext4
row classic vg0 classic linear
row small vg0 small invalid
expect 0 blkferry list --json
says '"volume":{"group":"vg0","invalid":false,"name":"monday","origin":"thin-one","percent":50,"pool":"pool","tags":[],"type":"thin"}'
says '"volume":{"group":"vg0","invalid":true,"name":"small","origin":"linear","tags":[],"type":"linear"}'

step 'a UUID that is on an origin and its snapshot is refused with all of them; other names are not'
uuid=$(blkid -p -s UUID -o value /dev/vg0/linear)
expect 2 blkferry "UUID=$uuid" /tmp/image
says ': vg0/linear ('
says '; vg0/classic, a snapshot of vg0/linear ('
serve --export "UUID=$uuid:rw"
for name in "UUID=$uuid" dev/mapper/vg0-classic dev/mapper/vg0-linear; do
    expect 2 blkferry --overwrite /dev/vg0/linear "http://127.0.0.1:8080/$name"
    says '/dev/mapper/vg0-classic, a snapshot of /dev/mapper/vg0-linear'
done
kill $server
wait $server || fail "the server ended with $?"
truncate -s 64M /tmp/image
expect 2 blkferry /tmp/image "UUID=$uuid"
for name in vg0/linear vg0/classic; do
    expect 0 blkferry --overwrite "$name" /tmp/image
    same "/dev/$name" /tmp/image
    expect 0 blkferry verify "LVUUID=$(lvs --noheadings -o lv_uuid "$name" | tr -d ' ')" /tmp/image
done
expect 0 blkferry --overwrite vg0/thin-one /tmp/image
same /dev/vg0/thin-one /tmp/image

step 'a base that a refresh leaves does not make the UUID of its source ambiguous'
lvremove -qq -f vg0/classic vg0/small
# An image on tmpfs has no change counter, and refresh keeps no base for such a target.
mkfs.ext4 -q -F -I 256 ${disk}c
mount ${disk}c /mnt
for try in 1 2; do
    expect 0 blkferry refresh --snapshot-size 8M vg0/linear /mnt/base-image
    expect 0 blkferry --overwrite "UUID=$uuid" /tmp/image
    same /dev/vg0/linear /tmp/image
done
[ "$(lvs --noheadings -o lv_name vg0 | grep -c blkferry)" = 1 ] || fail "$(lvs vg0)"

step 'the names of devices that LVM itself uses are no targets'
expect 2 blkferry --overwrite /tmp/image vg0/pool_tdata
says 'it is no active logical volume'
for part in pool_tdata linear-real; do
    expect 2 blkferry --overwrite --size-policy prefix /tmp/image /dev/mapper/vg0-$part
    says 'refused: it is held by device-mapper device vg0-'
done

step 'another program holds the lock of LVM: list prints that, and lists the rest'
flock --no-fork /run/lock/lvm/V_vg0 sleep 1000 &
holder=$!
is_locked() { ! flock --nonblock /run/lock/lvm/V_vg0 true; }
becomes is_locked
expect 0 blkferry list
says 'timed out waiting for LVM'
row linear ext4
kill $holder

step 'the same without LVM'
mv /bin/lvm /bin/lvm.away
expect 0 blkferry list
row linear ext4
mv /bin/lvm.away /bin/lvm
