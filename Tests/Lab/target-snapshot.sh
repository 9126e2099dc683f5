# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: --snapshot-target keeps the target as it was, to be merged back; --keep rotates dated ones
# seconds: 55
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y -L 32M -n source vg0
lvcreate -qq -y -L 32M -n linear vg0
lvcreate -qq -y --type thin-pool -L 160M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
fill /dev/vg0/source 0 32
snapshots() { lvs --noheadings -o lv_name -S "lv_name=~$1" vg0 | tr -d ' '; }

for target in linear thin; do
    step "$target: rolled back"
    expect 0 blkferry /dev/vg0/source /dev/vg0/$target
    dd if=/dev/vg0/$target of=/tmp/before bs=1M 2>/dev/null
    fill /dev/vg0/source 4 4
    expect 0 blkferry --dry-run --snapshot-target before /dev/vg0/source /dev/vg0/$target
    [ -z "$(snapshots before)" ] || fail 'a dry run has taken a snapshot'
    expect 0 blkferry --snapshot-target before /dev/vg0/source /dev/vg0/$target
    same /dev/vg0/source /dev/vg0/$target
    differ /tmp/before /dev/vg0/$target
    expect 0 blkferry /dev/vg0/source /dev/vg0/$target
    case $output in *'is lost'*) fail 'a snapshot with room for everything is no reason to warn' ;; esac
    expect 2 blkferry --snapshot-target before /dev/vg0/source /dev/vg0/$target
    says 'is there already'
    lvchange -an vg0/$target
    lvconvert -qq -y --merge vg0/before
    lvchange -ay vg0/$target
    # A process of LVM in the background checks when the merge is done.
    becomes is_gone vg0/before
    cmp /tmp/before /dev/vg0/$target || fail 'it is not what it was'
done

step 'a warning if a sync may make a smaller snapshot of the user overflow'
lvcreate -qq -y -s -L 4M -n mine vg0/linear
fill /dev/vg0/source 0 32
expect 0 blkferry --dry-run /dev/vg0/source vg0/linear
says 'vg0/linear: its snapshot vg0/mine is lost if more than its 4194304 bytes change'
expect 0 blkferry /dev/vg0/source vg0/linear
says 'vg0/linear: its snapshot vg0/mine is lost if more than its 4194304 bytes change'
lvremove -qq -f vg0/mine

step 'dated: the newest two of a name are kept, and snapshots that blkferry did not create'
lvcreate -qq -y -s -n daily-20200101T000000Z vg0/thin
for round in 1 2 3 4; do
    fill /dev/vg0/source "$round" 1
    expect 0 blkferry --snapshot-target daily --keep 2 /dev/vg0/source /dev/vg0/thin
    same /dev/vg0/source /dev/vg0/thin
    sleep 1.1
done
expect 0 blkferry --snapshot-target weekly --keep 1 /dev/vg0/source /dev/vg0/thin
snapshots daily
[ "$(snapshots daily | wc -l)" = 3 ] || fail 'not two of ours, and one of others'
snapshots daily | grep -q '^daily-20200101T000000Z$' || fail 'a snapshot that is not ours is gone'
[ "$(snapshots weekly | wc -l)" = 1 ] || fail 'not one weekly'

step 'two targets of a group at once: both have their snapshot'
lvcreate -qq -y -V 32M --thinpool pool -n other vg0 2>/dev/null
expect 0 blkferry /dev/vg0/source /dev/vg0/other
pids=
for target in thin other; do
    blkferry --snapshot-target both --keep 2 /dev/vg0/source /dev/vg0/$target &
    pids="$pids $!"
done
for pid in $pids; do wait "$pid" || fail "it ended with $?"; done
[ "$(snapshots both | wc -l)" = 2 ] || fail "not two: $(lvs vg0)"
lvremove -qq -y vg0/other

step 'no room, no volume, no name, in use, and a failure before anything is written'
lvcreate -qq -y -l 100%FREE -n rest vg0
lvreduce -qq -f -L -16M vg0/rest
expect 2 blkferry --snapshot-target before /dev/vg0/source /dev/vg0/linear
says 'bytes that are free'
fill ${disk}c 0 32
expect 2 blkferry --size-policy prefix --overwrite --snapshot-target before /dev/vg0/source ${disk}c
says 'no logical volume'
expect 64 blkferry --snapshot-target 'a b' /dev/vg0/source /dev/vg0/thin
expect 64 blkferry --keep 3 /dev/vg0/source /dev/vg0/thin
expect 64 blkferry --keep 0 --snapshot-target x /dev/vg0/source /dev/vg0/thin
mkfs.ext4 -q -F /dev/vg0/thin
mount /dev/vg0/thin /mnt
expect 2 blkferry --overwrite --snapshot-target before /dev/vg0/source /dev/vg0/thin
umount /mnt
echo '0 65536 error' | mapped bad
expect 3 blkferry --overwrite --snapshot-target before /dev/mapper/bad /dev/vg0/thin
says 'read at'
[ -z "$(snapshots before)" ] || fail 'a run that has written nothing has left its snapshot'
before=$(snapshots daily)
sleep 1.1
expect 3 blkferry --overwrite --snapshot-target daily --keep 1 /dev/mapper/bad /dev/vg0/thin
[ "$(snapshots daily)" = "$before" ] || fail "a run that has failed has changed the history: $(snapshots daily)"

step 'merged back, the history goes on'
lvremove -qq -y vg0/daily-20200101T000000Z
newest=$(snapshots daily | tail -n 1)
lvchange -qq -an vg0/thin
lvconvert -qq -y --merge "vg0/$newest"
lvchange -qq -ay vg0/thin
[ "$(snapshots daily | wc -l)" = 1 ] || fail "not merged: $(lvs vg0)"
expect 0 blkferry --overwrite --snapshot-target daily --keep 1 /dev/vg0/source /dev/vg0/thin
[ "$(snapshots daily | wc -l)" = 1 ] || fail "those of before have been forgotten: $(lvs -o+lv_tags vg0)"
