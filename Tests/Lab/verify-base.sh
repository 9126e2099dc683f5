# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: verify of refreshed replicas, also in samples, while the volume changes; what it leaves for watching
# seconds: 90
# disks: 300M 100M
volume_group vg0 ${disk}a
lvcreate -qq -y --type thin-pool -L 100M -n pool vg0
lvcreate -qq -y -V 48M --thinpool pool -n thin vg0
lvcreate -qq -y -L 48M -n plain vg0
images ${disk}b
mkdir -p /etc/blkferry/replicas /var/lib/prometheus/node-exporter
metrics=/var/lib/prometheus/node-exporter/blkferry.prom
for name in thin plain; do
    fill /dev/vg0/$name 0 8
    printf 'source = vg0/%s\ntarget = /images/%s.img\nsnapshot-size = 50%%\nwait = 5s\nverify\n' $name $name \
        >/etc/blkferry/replicas/$name.conf
done
# metric NAME VALUE [REASON]: of the replica $name.
metric() {
    local labels="replica=\"$name\",source=\"vg0/$name\",target=\"/images/$name.img\""
    [ $# = 2 ] || labels="$labels,reason=\"$3\""
    grep -q "^blkferry_replica_$1{$labels} $2\$" $metrics || fail "$1: $(cat $metrics)"
}

for name in thin plain; do
    step "$name: without a refresh there is nothing to compare with"
    truncate -s 48M /images/$name.img
    expect 2 blkferry verify --config $name
    says "no refresh has left a snapshot of vg0/$name that it is the replica of"
    says 'Refresh it first.'
    expect 0 blkferry refresh --config $name
    metric last_run_exit_status 0
    metric last_run_full_comparison 1 no-earlier-run
    metric last_verify_exit_status 0 # the refresh has verified

    step "$name: the volume changes, and the replica is as it was"
    fill /dev/vg0/$name 2 4
    expect 1 blkferry verify /dev/vg0/$name /images/$name.img
    expect 0 blkferry verify --config $name
    for covered in '41.67 %' '83.33 %' '100 %'; do
        expect 0 blkferry verify --config $name --sample 40
        says 'no difference in the sample'
        says "covered     $covered"
    done
    expect 0 blkferry verify --base vg0/$name /images/$name.img
    says identical
    expect 0 blkferry replicas $name
    says ' ok'

    step "$name: a difference that the next refresh would not see"
    drawn of=/images/$name.img iflag=skip_bytes,fullblock count=1 bs=4096 seek=$((20 << 8)) conv=notrunc
    expect 1 blkferry verify --config $name
    says 'the next refresh compares everything'
    metric last_verify_exit_status 1
    metric last_verify_different_bytes 4096
    expect 1 blkferry replicas $name
    says 'the last verify ended with 1: 4096 bytes'
    expect 0 blkferry refresh --config $name
    says 'falls back to a full comparison'
    metric last_run_full_comparison 1 unknown-replica
    same /dev/vg0/$name /images/$name.img
    expect 0 blkferry verify --config $name
    expect 0 blkferry refresh --config $name
    metric last_run_full_comparison 0 ''
done

step 'while a refresh or a verification runs, the other one waits, and then is refused'
name=thin
# shellcheck disable=SC2016
printf '#!/bin/sh\nexec sleep 1000\n' >/tmp/hold
chmod 755 /tmp/hold
blkferry refresh --config thin --before-snapshot /tmp/hold >/tmp/log 2>&1 &
run=$!
held() { pidof sleep >/dev/null; }
becomes held
expect 2 blkferry verify --config thin
says 'another run to /images/thin.img is in progress'
metric running_since_timestamp_seconds '[0-9]*'

step 'the run is killed; the unit records it'
kill -KILL $run
wait $run || true
expect 1 blkferry replicas thin
says 'did not end'
expect 0 blkferry refresh --config thin --before-snapshot /tmp/hold --finish-killed
metric last_run_exit_status 137
expect 1 blkferry replicas thin
says 'the last run ended with 137: killed'
ls -A /var/lib/prometheus/node-exporter >/tmp/names
[ "$(cat /tmp/names)" = blkferry.prom ] || fail "$(cat /tmp/names)"
