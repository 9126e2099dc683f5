# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a classic snapshot that fills up is extended while there is room, else the run ends with 3 in time
# seconds: 80
# disks: 400M 200M
volume_group vg0 ${disk}a
lvcreate -qq -y -L 48M -n linear vg0
fill /dev/vg0/linear 0 48
# snapshots COUNT: blkferry has COUNT snapshots.
snapshots() {
    count=$(lvs --noheadings -o lv_name vg0 | grep -c blkferry || true)
    [ "$count" = "$1" ] || fail "$count snapshots: $(lvs vg0)"
}
# start OPTION...: a slow sync through a server, so that the snapshot has to last.
start() {
    rm -f /tmp/replica.img
    blkferry sync -v --snapshot "$@" --bwlimit 1M vg0/linear http://127.0.0.1:8080/tmp/replica.img >/tmp/out 2>&1 &
    run=$!
    while ! ls /dev/mapper/*blkferry*-cow >/dev/null 2>&1; do :; done
}
# ends STATUS TEXT
ends() {
    status=0
    wait $run || status=$?
    cat /tmp/out
    [ $status = "$1" ] || fail "status $status, expected $1"
    grep -q "$2" /tmp/out || fail "no \"$2\""
    snapshots 0
}
# write_slowly COUNT: so many MiB. From the ninth on, when the store gets full, slowly enough for the run,
# which checks every second. Ends with the run.
write_slowly() {
    fill /dev/vg0/linear 0 8
    part=8
    while [ $part -lt "$1" ] && kill -0 $run 2>/dev/null; do
        fill /dev/vg0/linear $part 1 || true
        part=$((part + 1))
        sleep 2
    done
}
serve --export /tmp/:rw

step 'there is room: the snapshot is extended, and the replica is of its moment'
before=$(digest /dev/vg0/linear)
start --snapshot-size 12M
# What comes behind it, so that it gets a second segment.
lvcreate -qq -y -L 4M -n between vg0
write_slowly 14
ends 0 'extended'
lvremove -qq -f vg0/between
[ "$(digest /tmp/replica.img)" = "$before" ] || fail 'the replica is not what the volume was'

step 'not enough room: the run uses all of it, then ends in time with the reason'
free=$(vgs --noheadings -o vg_free_count vg0)
lvcreate -qq -y -l $((free - 4)) -n rest vg0
start --snapshot-size 12M
write_slowly 14
ends 3 'about to overflow'
grep -q 'extended to 16777216 bytes' /tmp/out || fail 'it was not extended by one extent'
! grep -q interrupted /tmp/out || fail 'nobody has interrupted it'

step 'an overflow at once: never 0'
start --snapshot-size 4M
fill /dev/vg0/linear 0 40 || true
ends 3 'it has overflowed'
kill $server
wait $server || true
