# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: SIGKILL at ten moments of refresh, then one that ends equal and leaves no snapshot but its base
# seconds: 130
# disks: 400M 200M
volume_group vg0 ${disk}a
lvcreate -qq -y --type thin-pool -L 200M -n pool vg0
lvcreate -qq -y -V 64M --thinpool pool -n thin vg0
lvcreate -qq -y -L 32M -n linear vg0
fill /dev/vg0/thin 0 64
fill /dev/vg0/linear 0 32

# names VOLUME: the snapshots that blkferry has made of it.
names() { lvs --noheadings -o lv_name -S "origin=$1" vg0 | tr -d ' ' | grep blkferry || true; }

# change: makes the changes that a refresh has to find.
change() {
    fill /dev/vg0/$volume 3 6
    dd if=/dev/urandom of=/dev/vg0/$volume bs=4k seek=5000 count=30 oflag=direct conv=notrunc 2>/dev/null
}
# hundredths: since the boot.
hundredths() { sed 's/\([0-9]*\)\.\([0-9]*\) .*/\1\2/' /proc/uptime; }
# devices: the number of devices of blkferry's snapshots.
devices() { ls /dev/mapper | grep -c blkferry || true; }

killed=0 midway=0
for volume in thin linear; do
    moments=7
    [ $volume = thin ] || moments=3
    lvcreate -qq -y -L 64M -n target vg0
    refresh="blkferry refresh --snapshot-size 60% --size-policy prefix vg0/$volume /dev/vg0/target"
    expect 0 $refresh
    # How long a refresh with a base takes.
    change
    start=$(hundredths)
    expect 0 $refresh
    took=$(($(hundredths) - start))
    tries=0
    while [ $moments -gt 0 ]; do
        tries=$((tries + 1))
        [ $tries -le 30 ] || fail "only $killed runs were killed"
        # While it looks around, makes the snapshot, reads the map, writes, marks, removes.
        pause=$(($(od -An -N 2 -t u2 /dev/urandom) * took / 65536))
        change
        before=$(devices)
        $refresh >/dev/null 2>&1 &
        run=$!
        sleep "$(printf '%d.%02d' $((pause / 100)) $((pause % 100)))"
        left=$(devices)
        kill -KILL $run 2>/dev/null || true
        status=0
        wait $run || status=$?
        echo "$tries: status $status after $pause of $took hundredths, $before and then $left devices"
        # How long a run takes changes with the load. One that was over is no moment.
        if [ $status != 137 ]; then
            took=$((took * 3 / 4))
        else
            killed=$((killed + 1)) moments=$((moments - 1))
            if [ $left -gt $before ]; then midway=$((midway + 1)); else took=$((took * 5 / 4)); fi
        fi
        # Changes a part that the killed run may have written already.
        dd if=/dev/urandom of=/dev/vg0/$volume bs=4k seek=800 count=10 oflag=direct conv=notrunc 2>/dev/null
        expect 0 $refresh
        same /dev/vg0/$volume /dev/vg0/target
        [ "$(names $volume | wc -l)" = 1 ] || fail "snapshots: $(names $volume)"
        [ "$(dmsetup status vg0-pool-tpool | cut -d ' ' -f 7)" = - ] || fail 'the metadata snapshot is held'
    done
    lvremove -qq -f vg0/target
    for name in $(names $volume); do lvremove -qq -f "vg0/$name"; done
done
[ $midway -ge 1 ] || fail 'none was killed while its snapshot was there'
