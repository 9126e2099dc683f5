# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: SIGKILL at ten moments of refresh, then one that ends equal and leaves no snapshot but its base
# seconds: 500
# disks: 400M 200M
volume_group vg0 /dev/vda
lvcreate -qq -y --type thin-pool -L 200M -n pool vg0
lvcreate -qq -y -V 64M --thinpool pool -n thin vg0
lvcreate -qq -y -L 32M -n linear vg0
fill /dev/vg0/thin 0 64
fill /dev/vg0/linear 0 32

# names VOLUME: the snapshots of ours.
names() { lvs --noheadings -o lv_name -S "origin=$1" vg0 | tr -d ' ' | grep blkferry || true; }

for volume in thin linear; do
    moments='1 2 3 4 5 6 7 8'
    [ $volume = thin ] || moments='1 2'
    lvcreate -qq -y -L 64M -n target vg0
    expect 0 blkferry refresh --snapshot-size 60% --size-policy prefix vg0/$volume /dev/vg0/target
    # While it looks around, makes the snapshot, reads the map, writes, marks, removes.
    for moment in $moments; do
        pause=$(od -An -N 2 -t u2 /dev/urandom | awk '{printf "%.2f", $1 % 250 / 100}')
        fill /dev/vg0/$volume 3 6
        dd if=/dev/urandom of=/dev/vg0/$volume bs=4k seek=5000 count=30 oflag=direct conv=notrunc 2>/dev/null
        blkferry refresh --snapshot-size 60% --size-policy prefix vg0/$volume /dev/vg0/target >/dev/null 2>&1 &
        run=$!
        sleep $pause
        kill -KILL $run 2>/dev/null && echo "$moment: killed after $pause s" || echo "$moment: over after $pause s"
        wait $run || true
        # Something changes meanwhile that the killed run may have written already.
        dd if=/dev/urandom of=/dev/vg0/$volume bs=4k seek=800 count=10 oflag=direct conv=notrunc 2>/dev/null
        expect 0 blkferry refresh --snapshot-size 60% --size-policy prefix vg0/$volume /dev/vg0/target
        same /dev/vg0/$volume /dev/vg0/target
        [ "$(names $volume | wc -l)" = 1 ] || fail "snapshots: $(names $volume)"
        [ "$(dmsetup status vg0-pool-tpool | cut -d ' ' -f 7)" = - ] || fail 'the metadata snapshot is held'
    done
    lvremove -qq -f vg0/target
    for name in $(names $volume); do lvremove -qq -f "vg0/$name"; done
done
