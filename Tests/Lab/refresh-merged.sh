# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: refresh compares everything on a target changed by a merge, or without counts; bases of merged sources and clones
# seconds: 90
# disks: 150M 200M 32M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y --type thin-pool -L 100M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n root vg0
lvcreate -qq -y -L 32M -n backup vg1
fill /dev/vg0/root 0 32

# merged SNAPSHOT: merges it into its origin, which stays active.
merged() {
    lvconvert -qq -y --merge "vg1/$1"
    becomes is_gone "vg1/$1"
}
# whole TARGET: the next refresh compares everything, and the one after that does not.
whole() {
    fill /dev/vg0/root 20 1
    expect 0 blkferry refresh -v vg0/root "$1"
    says 'full comparison'
    same /dev/vg0/root "$2"
    expect 0 blkferry refresh -v vg0/root "$1"
    says unchanged
}

step 'the last snapshot is merged: a volume without snapshots has the blocks again'
expect 0 blkferry refresh vg0/root vg1/backup
fill /dev/vg0/root 4 1
expect 0 blkferry refresh --snapshot-target before vg0/root vg1/backup
same /dev/vg0/root /dev/vg1/backup
merged before
differ /dev/vg0/root /dev/vg1/backup
whole vg1/backup /dev/vg1/backup

step 'one of two, over the network: the device with the blocks is written, the target is not'
serve --export vg1:rw,create
url=http://127.0.0.1:8080/dev/vg1/backup
lvcreate -qq -y -s -L 36M -n stays vg1/backup
expect 0 blkferry refresh --snapshot-target before vg0/root $url
fill /dev/vg0/root 6 1
expect 0 blkferry refresh -v vg0/root $url
says 'have changed since'
same /dev/vg0/root /dev/vg1/backup
merged before
differ /dev/vg0/root /dev/vg1/backup
whole $url /dev/vg1/backup

step 'a snapshot that was taken, written and merged after the refresh: table and counts are as before'
lvremove -qq -f vg1/stays
expect 0 blkferry refresh vg0/root $url
for target in $url vg1/backup; do
    expect 0 blkferry refresh vg0/root $target
    lvcreate -qq -y -s -L 8M -n test vg1/backup
    dd if=/dev/urandom of=/dev/vg1/test bs=4k seek=5000 count=1 oflag=direct conv=notrunc 2>/dev/null
    merged test
    differ /dev/vg0/root /dev/vg1/backup
    expect 0 blkferry refresh vg0/root $target
    says 'another program may have written to it'
    same /dev/vg0/root /dev/vg1/backup
done
kill $server
wait $server || fail "the server ended with $?"

step 'a snapshot is merged into the source: the base is removed, though LVM has lost its origin'
lvcreate -qq -y -s -kn -n earlier vg0/root
fill /dev/vg0/root 8 1
expect 0 blkferry refresh vg0/root vg1/backup
lvchange -qq -an vg0/root
lvconvert -qq -y --merge vg0/earlier
lvchange -qq -ay vg0/root
expect 0 blkferry refresh -v vg0/root vg1/backup
says 'full comparison'
same /dev/vg0/root /dev/vg1/backup
[ "$(lvs --noheadings -o lv_name,lv_tags vg0 | grep -c blkferry)" = 2 ] || fail "not one for each target: $(lvs -o+lv_tags vg0)"

step 'a source that is a snapshot itself: its base does not count after the first write'
lvcreate -qq -y -s -kn -n clone vg0/root
lvcreate -qq -y -L 32M -n other vg1
records() { lvs --noheadings -o lv_name,lv_tags vg0 | grep 'clone.*blkferry.replica' || true; }
serve --export vg1:rw
url=http://127.0.0.1:8080/dev/vg1/other
expect 0 blkferry refresh vg0/clone $url
[ -n "$(records)" ] || fail 'there is no record'
fill /dev/vg0/clone 8 16
# Slow enough to be checked during the run: one request after the other, and the first ends soon.
begun /tmp/out /dev/vg1/other blkferry refresh -v -c 1 --bwlimit 2M vg0/clone $url
during=$(records)
kill -0 $run || fail 'it was over before it was looked at'
[ -z "$during" ] || fail "there is a record of the replica while the target is written: $during"
wait $run || fail "$(cat /tmp/out)"
grep 'have changed since' /tmp/out
same /dev/vg0/clone /dev/vg1/other
[ -n "$(records)" ] || fail 'there is no record any more'
kill $server
wait $server || fail "the server ended with $?"

step 'a disk without counts: there is no base'
echo 0 >$(described ${disk}c)/queue/iostats
expect 0 blkferry refresh vg0/root ${disk}c
fill /dev/vg0/root 4 1
dd if=/dev/urandom of=${disk}c bs=4k seek=5000 count=1 oflag=direct 2>/dev/null
expect 0 blkferry refresh --quiet vg0/root ${disk}c
says 'no persistent change counter: the kernel counts nothing on it'
same /dev/vg0/root ${disk}c
