# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: volumes of several segments, those of a group's clone, and reports in other forms are understood
# A German file of locale(7), category LC_NUMERIC, as localedef(1) makes it: 1.234,5.
numbers=FBEDIAYAAAAgAAAAIgAAACQAAAAoAAAALAAAADAAAAAsAC4AAwMAACwAAAAuAAAAVVRGLTgA
# row NAME WORD...: the line of a volume has these words.
row() {
    # shellcheck disable=SC2154 # expect sets it
    line=$(echo "$output" | grep "/dev/mapper/$1 ") || fail "no line of $1"
    shift
    for word in "$@"; do
        case " $line " in *" $word "*) ;; *) fail "no $word in: $line" ;; esac
    done
}
volume_group vg0 ${disk}a
lvcreate -qq -y -L 32M -n root vg0
lvcreate -qq -y -L 4M -n between vg0
lvextend -qq -L 64M vg0/root
fill /dev/vg0/root 0 64

step 'a volume of two segments is one volume'
[ "$(lvs --noheadings --segments vg0/root | wc -l)" = 2 ] || fail "$(lvs --segments vg0/root)"
expect 0 blkferry sync -v --snapshot --snapshot-size 8M vg0/root /tmp/image
says 'a snapshot of vg0/root'
same /dev/vg0/root /tmp/image
expect 0 blkferry list
[ "$(echo "$output" | grep -c '/dev/mapper/vg0-root ')" = 1 ] || fail 'not one line'

step 'a group is no volume, though it has but one'
lvremove -qq -f vg0/between
expect 3 blkferry sync --snapshot vg0 /tmp/image
says 'no logical volume'

step 'volumes of a clone have the same UUID, and every other name distinguishes them'
vgchange -qq -an vg0
dd if=${disk}a of=${disk}b bs=4M oflag=direct 2>/dev/null
lvm vgimportclone --basevgname vg9 ${disk}b
vgchange -qq -ay vg0 vg9
uuid=$(lvs --noheadings -o lv_uuid vg0/root | tr -d ' ')
[ "$(lvs --noheadings -o lv_uuid vg9/root | tr -d ' ')" = "$uuid" ] || fail 'vgimportclone has changed it'
fill /dev/vg9/root 20 4
for group in vg0 vg9; do
    expect 0 blkferry sync --snapshot --snapshot-size 8M $group/root /tmp/image
    same /dev/$group/root /tmp/image
done
expect 2 blkferry "LVUUID=$uuid" /tmp/image
says vg9/root
expect 0 blkferry list
row vg0-root vg0
row vg9-root vg9
expect 0 blkferry sync --snapshot --snapshot-size 8M vg0/root /dev/vg9/root
same /dev/vg0/root /dev/vg9/root

step 'lvm.conf has reports in another form'
lvcreate -qq -y -s -L 8M -n snap --addtag one --addtag two vg0/root
fill /dev/vg0/root 0 4
cp /etc/lvm/lvm.conf /tmp/lvm.conf
cat >>/etc/lvm/lvm.conf <<END
report {
    prefixes = 1
    mark_hidden_devices = 0
    list_item_separator = ";"
    compact_output = 1
    headings = 0
}
global {
    units = "h"
}
log {
    command_names = 1
    prefix = "> "
}
END
expect 0 blkferry list --json
says '"tags":["one","two"]'
expect 0 blkferry sync --snapshot --snapshot-size 8M vg9/root /tmp/image
cp /tmp/lvm.conf /etc/lvm/lvm.conf

step 'percentages in German notation'
mkdir -p /tmp/locale/de_DE.UTF-8
echo "$numbers" | base64 -d >/tmp/locale/de_DE.UTF-8/LC_NUMERIC
export LOCPATH=/tmp/locale LC_NUMERIC=de_DE.UTF-8
filled=$(lvs --noheadings -o snap_percent vg0/snap | tr -d ' ')
case $filled in 5*,*) ;; *) fail "the locale is not used: $filled" ;; esac
expect 0 blkferry list
row vg0-snap "$(echo "$filled" | tr , .)" root
