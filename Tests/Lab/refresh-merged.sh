# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a target that was given other content from below, or that nothing is counted on, is compared as a whole
# seconds: 45
# disks: 150M 200M 32M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y --type thin-pool -L 100M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n root vg0
lvcreate -qq -y -L 32M -n backup vg1
fill /dev/vg0/root 0 32

# merged SNAPSHOT: it is merged into its origin, which stays active.
merged() {
    lvconvert -qq -y --merge "vg1/$1"
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        lvs "vg1/$1" >/dev/null 2>&1 || return 0
        sleep 1
    done
    fail "$1 is not merged"
}
# whole TARGET: the next refresh compares everything, and the one after that does not.
whole() {
    fill /dev/vg0/root 20 1
    expect 0 blkferry refresh -v vg0/root "$1"
    says 'comparing everything'
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
blkferry serve -q --export vg1:rw,create &
server=$!
for try in 1 2 3 4 5 6 7 8 9 10; do
    ! blkferry list http://127.0.0.1:8080 >/dev/null 2>&1 || break
    sleep 0.5
done
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
kill $server
wait $server || fail "the server ended with $?"

step 'nothing is counted on a disk: there is no base'
echo 0 >$(described ${disk}c)/queue/iostats
expect 0 blkferry refresh vg0/root ${disk}c
fill /dev/vg0/root 4 1
dd if=/dev/urandom of=${disk}c bs=4k seek=5000 count=1 oflag=direct 2>/dev/null
expect 0 blkferry refresh -v vg0/root ${disk}c
same /dev/vg0/root ${disk}c
