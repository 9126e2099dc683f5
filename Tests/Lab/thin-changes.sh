# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: the change map of a thin volume has all writes, discards and growth since a snapshot
# programs: ChangeMapProbe
volume_group vg-0 ${disk}a ${disk}b
lvcreate -qq -y --type thin-pool -L 100M -c 64k -n pool vg-0
lvchange -qq --errorwhenfull y vg-0/pool
lvcreate -qq -y -V 32M --thinpool pool -n thin vg-0
pool=vg--0-pool-tpool

# snapshot NAME: a thin snapshot of the volume, as it is now.
snapshot() { lvcreate -qq -y -s -kn -n "$1" vg-0/thin; }
# id NAME: its thin id; LVM counts from 1.
id() {
    case $1 in thin) echo 1 ;; first) echo 2 ;; second) echo 3 ;; third) echo 4 ;; esac
}
# map OLD NEW: prints the change map, and compares outside of it.
map() { ChangeMapProbe thin vg-0 pool "$(id "$1")" "$(id "$2")" "/dev/vg-0/$1" "/dev/vg-0/$2"; }
# is LINES: the output was LINES and nothing else.
is() { [ "$output" = "$1" ] || fail "expected: $1"; }
# held STATE: the root of the metadata snapshot, or - for none.
held() { [ "$(dmsetup status $pool | cut -d ' ' -f 7)" = "$1" ] || fail "not $1: $(dmsetup status $pool)"; }
# write SEEK COUNT: random blocks of 4 KiB.
write() { dd if=/dev/urandom of=/dev/vg-0/thin bs=4k seek="$1" count="$2" oflag=direct conv=notrunc 2>/dev/null; }

fill /dev/vg-0/thin 0 16
snapshot first
step 'nothing has changed'
expect 0 map first thin
is ''
held -

step 'overwritten, ragged, discarded, new: whole blocks of 64 KiB'
write 100 1
write 15 2
blkdiscard -o $((8 << 20)) -l $((1 << 20)) /dev/vg-0/thin
fill /dev/vg-0/thin 20 1
snapshot second
changed='0 128
384 64
8192 1024
20480 1024'
expect 0 map first second
is "$changed"
held -
expect 0 map second first
is "$changed"

step 'grown'
lvextend -qq -L 40M vg-0/thin
snapshot third
expect 0 map second third
is '32768 8192'
expect 0 map first third
is "$changed
32768 8192"
expect 0 map third first
is "$changed"

step 'the ids are those of LVM; an id that does not exist'
for name in first second third; do
    [ "$(lvs --noheadings -o thin_id vg-0/$name | tr -d ' ')" = "$(id $name)" ] || fail "$name"
done
expect 2 ChangeMapProbe thin vg-0 pool 2 99 /dev/vg-0/first /dev/vg-0/thin
says 'no change map: thin_delta'
held -

step 'held by another program, and it stays so'
dmsetup message $pool 0 reserve_metadata_snap
root=$(dmsetup status $pool | cut -d ' ' -f 7)
expect 2 map first second
says 'another program holds its metadata snapshot'
held "$root"

step 'left by a killed run, which its lock names'
dmsetup status $pool | cut -d ' ' -f 4- >/run/blkferry/$pool.lock
expect 0 map first second
is "$changed"
held -

step 'killed while it holds it: the next run recognises and releases it'
for pause in 05 10 15 20 30 50 80; do
    ChangeMapProbe thin vg-0 pool 2 3 /dev/vg-0/first /dev/vg-0/second >/dev/null 2>&1 &
    sleep "0.$pause"
    kill -KILL $! 2>/dev/null || true
    wait $! || true
    expect 0 map first second
    is "$changed"
    held -
done

step 'a pool that has no room for data any more'
is_full() { dmsetup status $pool | grep -q out_of_data_space; }
# Once more where chunks that were let go have made room after the first refusal.
for name in first second third third third; do is_full || fill /dev/vg-0/$name 0 32 || true; done
dmsetup status $pool
is_full || fail 'the pool has room'
expect 0 map first third
held -
