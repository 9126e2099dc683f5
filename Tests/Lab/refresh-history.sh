# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: refresh to a thin volume that it makes, with a history, and a roll back
# seconds: 60
# disks: 300M 300M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y --type thin-pool -L 200M -n pool vg0
lvcreate -qq -y -V 64M --thinpool pool -n root vg0
lvcreate -qq -y --type thin-pool -L 200M -n pool vg1
fill /dev/vg0/root 0 64
refresh() { expect 0 blkferry refresh -v --create --snapshot-target nightly --keep 2 vg0/root vg1/backup@pool; }
nightly() { lvs --noheadings -o lv_name vg1 | tr -d ' ' | grep nightly; }

step 'made, and refreshed three times'
expect 0 blkferry refresh --create vg0/root vg1/backup@pool
same /dev/vg0/root /dev/vg1/backup
for offset in 1 2 3; do
    digest /dev/vg0/root >"/tmp/sum$offset"
    fill /dev/vg0/root "$offset" 1
    refresh
    says 'have changed since'
    same /dev/vg0/root /dev/vg1/backup
    sleep 1
done
[ "$(nightly | wc -l)" = 2 ] || fail "$(lvs vg1)"
# 64 MiB, and what each of the last two has changed; of 200.
used=$(lvs --noheadings -o data_percent vg1/pool | tr -d ' ')
case $used in 3[2345].*) ;; *) fail "$used % of the pool are used: blocks are not shared" ;; esac

step 'chunks that the source has discarded are discarded on the target'
blkdiscard -o $((32 << 20)) -l $((8 << 20)) /dev/vg0/root
expect 0 blkferry refresh -v vg0/root vg1/backup
says 'have changed since'
same /dev/vg0/root /dev/vg1/backup
for volume in vg0/root vg1/backup; do
    mapped=$(lvs --noheadings -o data_percent $volume | tr -d ' ')
    [ "$mapped" = 87.50 ] || fail "$mapped % of $volume are mapped"
done
digest /dev/vg0/root >/tmp/sum4
fill /dev/vg0/root 5 1
refresh

step 'rolled back to the snapshot before the last run'
last=$(nightly | tail -n 1)
lvconvert -qq -y --merge "vg1/$last"
[ "$(digest /dev/vg1/backup)" = "$(cat /tmp/sum4)" ] || fail 'it is not what it was'
differ /dev/vg0/root /dev/vg1/backup

step 'and the next refresh is right'
refresh
says 'full comparison'
same /dev/vg0/root /dev/vg1/backup
refresh
says 'have changed since'
