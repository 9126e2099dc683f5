# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a run whose source volume is extended ends with 3, here and on a server; the next run copies all of it
# seconds: 40
# disks: 200M 40M
# Each write takes 100 ms, so that there is time to extend the source.
echo 0 81920 delay ${disk}b 0 0 ${disk}b 0 100 | mapped slow
target=/dev/mapper/slow
volume_group vg0 ${disk}a
lvcreate -qq -y --type thin-pool -L 48M -n pool vg0
lvcreate -qq -y -V 16M --thinpool pool -n thin vg0
lvcreate -qq -y -L 16M -n linear vg0
lvcreate -qq -y -L 16M -n remote vg0
serve --export vg0/remote

# extended SOURCE VOLUME: the run stops once it has written, and goes on with 4 MiB more behind the source.
extended() {
    fill "/dev/vg0/$2" 0 16
    begun /tmp/log $target blkferry -c 1 --overwrite --size-policy prefix "$1" $target
    kill -STOP $run
    lvextend -qq -L 20M "vg0/$2"
    fill "/dev/vg0/$2" 16 4
    kill -CONT $run
    status=0
    wait $run || status=$?
    output=$(cat /tmp/log)
    echo "$output"
    [ $status = 3 ] || fail "status $status, expected 3"
    says 'its size has changed from 16777216 to 20971520 bytes'
    expect 0 blkferry --overwrite --size-policy prefix "$1" $target
    same "/dev/vg0/$2" $target
}
for volume in linear thin; do
    step $volume
    extended /dev/vg0/$volume $volume
done
step 'on a server'
extended http://127.0.0.1:8080/dev/vg0/remote remote
kill $server
wait $server || fail "the server ended with $?"
