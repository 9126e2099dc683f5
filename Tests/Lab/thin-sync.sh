# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: thin volumes and snapshots, classic snapshots and linear volumes, each the replica of another
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y --type thin-pool -L 200M -n pool vg0
lvcreate -qq -y -V 64M --thinpool pool -n thin vg0
fill /dev/vg0/thin 0 32
lvcreate -qq -y -s -kn -n snap vg0/thin
fill /dev/vg0/thin 5 3
lvcreate -qq -y -L 64M -n linear vg0

step 'thin snapshot to linear'
expect 0 blkferry /dev/vg0/snap /dev/vg0/linear
same /dev/vg0/snap /dev/vg0/linear
differ /dev/vg0/thin /dev/vg0/linear

step 'classic snapshot to thin'
lvcreate -qq -y -s -L 64M -n classic vg0/linear
fill /dev/vg0/linear 60 2
expect 0 blkferry /dev/vg0/classic /dev/vg0/thin
same /dev/vg0/classic /dev/vg0/thin

step 'linear to thin, of the same pool as its snapshot'
expect 0 blkferry /dev/vg0/linear /dev/vg0/thin
same /dev/vg0/linear /dev/vg0/thin

step 'thin to linear, which has a snapshot'
fill /dev/vg0/thin 1 2
expect 0 blkferry /dev/vg0/thin /dev/vg0/linear
same /dev/vg0/thin /dev/vg0/linear

step 'linear to classic snapshot: the origin stays as it is'
before=$(digest /dev/vg0/linear)
expect 0 blkferry /dev/vg0/thin /dev/vg0/classic
fill /dev/vg0/thin 2 1
expect 0 blkferry /dev/vg0/thin /dev/vg0/classic
same /dev/vg0/thin /dev/vg0/classic
[ "$(digest /dev/vg0/linear)" = "$before" ] || fail 'the origin was written to'

step 'push and pull, of each kind'
serve --export vg0:rw
for target in linear classic snap; do
    fill /dev/vg0/thin 3 1
    # Zeros, which blkferry discards on a thin volume.
    blkdiscard -o $((40 << 20)) -l $((4 << 20)) /dev/vg0/thin
    expect 0 blkferry /dev/vg0/thin http://127.0.0.1:8080/dev/vg0/$target
    same /dev/vg0/thin /dev/vg0/$target
done
mapped=$(lvs --noheadings -o data_percent vg0/snap | tr -d ' ')
[ "$mapped" = "$(lvs --noheadings -o data_percent vg0/thin | tr -d ' ')" ] || fail "snap has $mapped % mapped"
for source in linear classic; do
    fill /dev/vg0/$source 7 1
    expect 0 blkferry http://127.0.0.1:8080/dev/vg0/$source /dev/vg0/thin
    same /dev/vg0/$source /dev/vg0/thin
done
kill "$server"
wait "$server" || fail "the server ended with $?"
