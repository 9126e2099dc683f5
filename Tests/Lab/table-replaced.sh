# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a linear table is replaced during a run: with a target it compares again and ends with 1, with a source it warns
# seconds: 60
# disks: 80M 80M
fill ${disk}a 0 64
fill ${disk}b 0 64
echo "0 65536 linear ${disk}a 0" | mapped t
random 33554432 >/tmp/image
# The device is on the client, since a server drops the capability that it needs to read a table.
serve --export /tmp/image:rw
url=http://127.0.0.1:8080/tmp/image
device=/dev/mapper/t

# load DISK SECTOR: maps the device to other bytes.
load() {
    dmsetup suspend --noudevsync t
    echo "0 65536 linear $1 $2" | dmsetup load t
    dmsetup resume --noudevsync t
}

# moved: the sectors that were read of the device and written to it.
moved() { echo $(($(sectors_read $device) + $(sectors_written $device))); }

# disturbed STATUS DISK SECTOR WORD...: a run during which the table is replaced.
disturbed() {
    local expected=$1 disk=$2 sector=$3 before run status=0
    shift 3
    before=$(moved)
    blkferry -q --bwlimit 6M --overwrite "$@" >/tmp/log 2>&1 &
    run=$!
    # More than what the gate reads.
    until [ $(($(moved) - before)) -ge 8192 ]; do
        kill -0 $run 2>/dev/null || fail "it was over too early: $(cat /tmp/log)"
        sleep 0.1
    done
    # It goes on only with the new table.
    kill -STOP $run
    load "$disk" "$sector"
    kill -CONT $run
    wait $run || status=$?
    output=$(cat /tmp/log)
    echo "$output"
    [ "$status" = "$expected" ] || fail "it ended with $status"
}

step 'a target that is mapped to another disk'
disturbed 1 ${disk}b 0 -W $url $device
says 'read back differently after the flush'

step 'a target that is mapped to other sectors of its disk'
load ${disk}a 0
disturbed 1 ${disk}a 65536 -W $url $device
says 'read back differently after the flush'

step 'a source'
load ${disk}a 0
fill ${disk}a 0 32
disturbed 0 ${disk}b 0 -W $device $url
says 'changed while it was read'
kill $server
