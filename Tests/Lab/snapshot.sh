# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# seconds: 80
# shows: sync --snapshot of thin, linear and mounted volumes; the snapshot is removed in every case
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y --type thin-pool -L 200M -n pool vg0
lvcreate -qq -y -V 64M --thinpool pool -n thin vg0
lvcreate -qq -y -L 64M -n linear vg0
fill /dev/vg0/thin 0 32
fill /dev/vg0/linear 0 64

# snapshots COUNT: blkferry has COUNT snapshots.
snapshots() {
    count=$(lvs --noheadings -o lv_name vg0 | grep -c blkferry || true)
    [ "$count" = "$1" ] || fail "$count snapshots: $(lvs -o+lv_tags vg0)"
}

step 'of a thin volume, by its name; of a linear one, by its path and its UUID'
expect 0 blkferry sync -v --snapshot vg0/thin /tmp/thin.img
says 'a snapshot of vg0/thin'
same /dev/vg0/thin /tmp/thin.img
snapshots 0
expect 0 blkferry sync --snapshot --snapshot-size 50% /dev/vg0/linear /tmp/linear.img
same /dev/vg0/linear /tmp/linear.img
expect 0 blkferry sync --snapshot "LVUUID=$(lvs --noheadings -o lv_uuid vg0/linear | tr -d ' ')" /tmp/linear.img
snapshots 0

step 'wrong input: nothing is left'
mkfs.ext4 -q -F /dev/vg0/linear
expect 2 blkferry sync --snapshot vg0/thin /dev/vg0/linear
says ext4
snapshots 0
for volume in linear thin; do
    expect 2 blkferry sync --overwrite --snapshot vg0/$volume /dev/vg0/$volume
    says source
    snapshots 0
done
mkdir -p /tmp/mounted
for volume in linear thin; do
    mkfs.ext4 -q -F /dev/vg0/$volume
    mount /dev/vg0/$volume /tmp/mounted
    for command in 'sync --snapshot' 'refresh' 'sync --create --dry-run --snapshot'; do
        # shellcheck disable=SC2086 # words
        expect 2 blkferry $command vg0/$volume /tmp/mounted/image
        says "it lies on the source, vg0/$volume"
    done
    # The server knows the snapshot only.
    serve --export /tmp/mounted/:rw
    expect 2 blkferry sync --snapshot vg0/$volume http://127.0.0.1:8080/tmp/mounted/image
    says "it lies on vg0/$volume, and the source"
    kill $server
    wait $server || fail "the server ended with $?"
    [ ! -e /tmp/mounted/image ] || fail 'there is an image'
    umount /tmp/mounted
    snapshots 0
done
fill /dev/vg0/thin 0 32
expect 3 blkferry sync --snapshot vg0/thin /tmp/no/such/place.img
snapshots 0
expect 3 blkferry sync --snapshot vg0/none /tmp/thin.img
expect 3 blkferry sync --snapshot ${disk}a /tmp/thin.img
says 'no logical volume'
lvcreate -qq -y -l 100%FREE -n rest vg0
expect 3 blkferry sync --snapshot vg0/linear /tmp/linear.img
says 'free'
lvremove -qq -f vg0/rest
expect 64 blkferry sync --snapshot-size 1G vg0/linear /tmp/linear.img
expect 64 blkferry sync --snapshot http://127.0.0.1:1/vg0/linear /tmp/linear.img
expect 2 blkferry sync --snapshot vg0/pool /tmp/linear.img
snapshots 0

# begins: there is a snapshot, which has just been opened.
begins() { while ! ls /dev/mapper/*.blkferry.* >/dev/null 2>&1; do :; done; }

step 'a signal: SIGTERM, since whatever a shell has in the background ignores SIGINT'
for volume in linear thin; do
    rm -f /tmp/image
    blkferry sync --snapshot vg0/$volume /tmp/image &
    run=$!
    begins
    # It has the signal before it can be done.
    kill -STOP $run
    kill -TERM $run
    kill -CONT $run
    status=0
    wait $run || status=$?
    [ $status = 130 ] || fail "status $status"
    snapshots 0
done

step 'a signal while a server does not answer'
serve --export /tmp/:rw
kill -STOP $server
for command in 'sync --snapshot' refresh; do
    # shellcheck disable=SC2086 # words
    blkferry $command vg0/thin http://127.0.0.1:8080/tmp/image &
    run=$!
    begins
    sleep 1
    kill -TERM $run
    status=0
    wait $run || status=$?
    [ $status = 130 ] || fail "$command: status $status"
    snapshots 0
done
kill -CONT $server
kill $server
wait $server || fail "the server ended with $?"

step 'SIGKILL: the next run removes it'
rm -f /tmp/linear.img
blkferry sync --snapshot vg0/linear /tmp/linear.img &
run=$!
begins
kill -KILL $run
wait $run || true
snapshots 1
expect 0 blkferry sync -v --snapshot vg0/linear /tmp/linear.img
says 'a run that was killed has left it'
same /dev/vg0/linear /tmp/linear.img
snapshots 0

step 'a mounted ext4 under writes: fsck is clean, and files are those of the moment'
for volume in thin linear; do
    mkfs.ext4 -q -F /dev/vg0/$volume
    mount /dev/vg0/$volume /mnt
    echo before >/mnt/before
    sync
    (
        number=0
        while [ ! -e /tmp/stop ]; do
            random 300000 >"/mnt/file$((number % 20))"
            number=$((number + 1))
            # In this order, so that in a snapshot the second file is never newer. No file is ever half written.
            for name in first second; do
                echo $number >/mnt/new && sync && mv /mnt/new /mnt/$name && sync
            done
        done
    ) &
    writer=$!
    becomes [ -e /mnt/second ]
    rm -f /tmp/replica.img
    expect 0 blkferry sync --snapshot --snapshot-size 90% vg0/$volume /tmp/replica.img
    touch /tmp/stop
    wait $writer || fail "the writer ended with $?"
    rm /tmp/stop
    umount /mnt
    snapshots 0
    # What the journal has is a part of the moment.
    expect 0 e2fsck -fy -E journal_only /tmp/replica.img
    expect 0 e2fsck -fn /tmp/replica.img
    mount -o loop,ro /tmp/replica.img /mnt
    [ "$(cat /mnt/before)" = before ] || fail 'a file of before is missing'
    first=$(cat /mnt/first) second=$(cat /mnt/second)
    [ "$first" = "$second" ] || [ "$first" = $((second + 1)) ] || fail "first $first, second $second"
    umount /mnt
    differ /dev/vg0/$volume /tmp/replica.img
done
