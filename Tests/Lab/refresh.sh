# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: refresh of a thin volume reads what has changed, and everything if the base is not proved
# seconds: 130
# disks: 500M 250M 300M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y --type thin-pool -L 420M -n pool vg0
lvcreate -qq -y -V 192M --thinpool pool -n thin vg0
lvcreate -qq -y -L 192M -n replica vg1
images ${disk}c
replica=/images/replica.img
fill /dev/vg0/thin 0 192

# snapshots COUNT: blkferry has COUNT snapshots.
snapshots() {
    count=$(lvs --noheadings -o lv_name vg0 | grep -c blkferry || true)
    [ "$count" = "$1" ] || fail "$count snapshots: $(lvs -o+lv_tags vg0)"
}
# reads: sectors that were read of the pool's data, through any volume.
reads() { sectors_read /dev/mapper/vg0-pool_tdata; }
# equal TARGET: it is the replica of the volume.
equal() { same /dev/vg0/thin "$1"; }

step 'the first time'
expect 0 blkferry refresh -v vg0/thin /dev/vg1/replica
says 'no earlier run'
equal /dev/vg1/replica
snapshots 1

step '1 % changes: at most 3 % are read'
dd if=/dev/urandom of=/dev/vg0/thin bs=64k seek=112 count=12 oflag=direct conv=notrunc 2>/dev/null
dd if=/dev/urandom of=/dev/vg0/thin bs=64k seek=1200 count=11 oflag=direct conv=notrunc 2>/dev/null
dd if=/dev/zero of=/dev/vg0/thin bs=64k seek=1500 count=8 oflag=direct conv=notrunc 2>/dev/null
before=$(reads)
target_before=$(sectors_read /dev/vg1/replica)
expect 0 blkferry refresh -v --json vg0/thin /dev/vg1/replica
after=$(reads)
target_after=$(sectors_read /dev/vg1/replica)
echo "source: $((after - before)) sectors of 393216, target: $((target_after - target_before))"
[ $((after - before)) -le 11796 ] || fail 'more than 3 % of the source were read'
[ $((target_after - target_before)) -le 11796 ] || fail 'more than 3 % of the target were read'
says '"unchanged":19'
equal /dev/vg1/replica
snapshots 1

step 'nothing has changed; then discarded: zeros'
expect 0 blkferry refresh vg0/thin /dev/vg1/replica
says 'unchanged'
blkdiscard -o $((32 << 20)) -l $((4 << 20)) /dev/vg0/thin
expect 0 blkferry refresh -v vg0/thin /dev/vg1/replica
says 'have changed since'
equal /dev/vg1/replica

step 'smaller ones, for an unproved base'
lvremove -qq -f vg0/thin vg1/replica
lvremove -qq -f @blkferry
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
lvcreate -qq -y -L 32M -n replica vg1
fill /dev/vg0/thin 0 32
expect 0 blkferry refresh vg0/thin /dev/vg1/replica
equal /dev/vg1/replica

step 'another program writes one block of the target: everything is compared'
dd if=/dev/urandom of=/dev/vg1/replica bs=4k seek=4000 count=1 oflag=direct conv=notrunc 2>/dev/null
expect 0 blkferry refresh vg0/thin /dev/vg1/replica
says 'full comparison'
equal /dev/vg1/replica
expect 0 blkferry refresh vg0/thin /dev/vg1/replica
says unchanged

step 'the base is lost'
lvremove -qq -f "vg0/$(lvs --noheadings -o lv_name vg0 | grep blkferry | tr -d ' ')"
fill /dev/vg0/thin 9 1
expect 0 blkferry refresh -v vg0/thin /dev/vg1/replica
says 'full comparison'
equal /dev/vg1/replica
snapshots 1

step 'another program holds the metadata snapshot of the pool'
dmsetup message vg0-pool-tpool 0 reserve_metadata_snap
fill /dev/vg0/thin 10 1
expect 0 blkferry refresh vg0/thin /dev/vg1/replica
says 'another program holds its metadata snapshot'
equal /dev/vg1/replica
dmsetup message vg0-pool-tpool 0 release_metadata_snap
expect 0 blkferry refresh vg0/thin /dev/vg1/replica
says unchanged

step 'two runs at once: the second one is refused'
fill /dev/vg0/thin 11 8
before=$(ls /dev/mapper | grep -c blkferry)
blkferry refresh vg0/thin /dev/vg1/replica >/dev/null 2>&1 &
first=$!
while [ "$(ls /dev/mapper | grep -c blkferry)" = "$before" ]; do :; done
kill -STOP $first
expect 2 blkferry refresh vg0/thin /dev/vg1/replica
says 'another run to /dev/vg1/replica is in progress'
kill -CONT $first
wait $first || fail "the first one ended with $?"
equal /dev/vg1/replica
snapshots 1

step 'to an image as well, and to a server'
expect 0 blkferry refresh vg0/thin $replica
snapshots 2
serve --export /dev/vg1/replica:rw
url=http://127.0.0.1:8080/dev/vg1/replica
expect 0 blkferry refresh vg0/thin $url
snapshots 3
fill /dev/vg0/thin 25 1
expect 0 blkferry refresh -v vg0/thin $replica
says 'have changed since'
equal $replica
expect 0 blkferry refresh -v vg0/thin $url
says 'have changed since'
equal /dev/vg1/replica
snapshots 3
kill -KILL $server
wait $server || true
expect 4 blkferry refresh vg0/thin $url
snapshots 3

step 'the volume grows'
lvextend -qq -L 36M vg0/thin
fill /dev/vg0/thin 33 2
expect 2 blkferry refresh vg0/thin /dev/vg1/replica
lvextend -qq -L 36M vg1/replica
fill /dev/vg1/replica 32 4
expect 0 blkferry refresh vg0/thin /dev/vg1/replica
equal /dev/vg1/replica

step 'with snapshots of the user'
lvcreate -qq -y -s -kn -n monday vg0/thin
expect 0 blkferry --since monday vg0/monday /dev/vg1/replica
says 'full comparison'
fill /dev/vg0/thin 20 1
lvcreate -qq -y -s -kn -n tuesday vg0/thin
expect 0 blkferry -v --since vg0/monday vg0/tuesday /dev/vg1/replica
says 'have changed since'
same /dev/vg0/tuesday /dev/vg1/replica
expect 0 blkferry --since vg0/monday vg0/tuesday /dev/vg1/replica
says 'not known whether'
expect 3 blkferry --since vg0/none vg0/tuesday /dev/vg1/replica
expect 3 blkferry --since vg1/replica vg0/tuesday /dev/vg1/replica
