# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a replica that the timer of systemd keeps fresh, with a frozen file system; its run is killed, fails
# host: /lib/systemd/systemd systemctl dumpe2fs
# seconds: 45
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y --type thin-pool -L 64M -n pool vg0
lvcreate -qq -y -V 16M --thinpool pool -n web vg0
lvcreate -qq -y -L 16M -n web vg1
# LVM does not freeze a file system above another device on the volume, such as dm-crypt.
echo '0 32768 linear /dev/vg0/web 0' | mapped above
mkfs.ext4 -q -F /dev/mapper/above
mkdir -p /srv/web
mount /dev/mapper/above /srv/web
random 4000000 >/srv/web/file
sync
mkdir -p /etc/blkferry/replicas /var/lib/prometheus/node-exporter
for unit in refresh verify; do
    # There is no journal here.
    drop_in blkferry-$unit@.service '[Service]' StandardError=append:/run/log
done
drop_in blkferry-refresh@.timer '[Timer]' OnActiveSec=1s RandomizedDelaySec=0
start_systemd timers

# has_run: the timer has started the service, which has ended.
has_run() {
    [ "$(systemctl show -P ActiveState blkferry-refresh@web.service)" = inactive ] &&
        [ "$(systemctl show -P InactiveEnterTimestampMonotonic blkferry-refresh@web.service)" != 0 ]
}
# result VALUE: how the last run of the service ended, and the exit status of its program.
result() {
    expect 0 systemctl show -P Result,ExecMainStatus blkferry-refresh@web.service
    says "$1"
}
# is_fresh: the target is the replica of the one snapshot that is left.
is_fresh() {
    snapshot=$(lvs --noheadings -o lv_name vg0 | tr -d ' ' | grep blkferry)
    lvchange -ay -K "vg0/$snapshot"
    same "/dev/vg0/$snapshot" /dev/vg1/web
}
# logged LINE...: the programs were started in this order.
logged() {
    local line
    for line; do echo "$line"; done >/tmp/expected
    sed 's/ *$//' /run/hooks >/tmp/found
    cmp -s /tmp/expected /tmp/found || fail "started: $(cat /tmp/found)"
    rm /run/hooks
}

step 'two lines, and the timer'
printf '%s\n' 'source = vg0/web' 'target = /dev/vg1/web' >/etc/blkferry/replicas/web.conf
expect 0 systemctl enable --now blkferry-refresh@web.timer
expect 0 systemctl is-enabled blkferry-refresh@web.timer
expect 0 systemctl is-active blkferry-refresh@web.timer
becomes has_run
result success
is_fresh
expect 0 booted blkferry replicas
says ' ok'
# As Tue 2026-12-01 00:35:11 UTC.
next=$(systemctl show -P NextElapseUSecRealtime blkferry-refresh@web.timer)
says "$(echo "$next" | cut -c 5-20)"
expect 0 grep -l '"name":"web"' /var/lib/blkferry/*.json
expect 0 grep blkferry_replica_lag_seconds /var/lib/prometheus/node-exporter/blkferry.prom
says '"vg0/web"'

step 'programs freeze the file system: the replica has no journal to replay'
# shellcheck disable=SC2016
echo '#!/bin/sh
echo "$BLKFERRY_HOOK $BLKFERRY_CONFIG $BLKFERRY_SOURCE $BLKFERRY_TARGET" \
    "${BLKFERRY_SNAPSHOT-} ${BLKFERRY_EXIT_STATUS-}" >>/run/hooks
if [ "$BLKFERRY_HOOK" = after-snapshot ] && rm /run/hold 2>/dev/null; then sleep 1000; fi
[ $# = 0 ] || exec "$@"' >/bin/hook
chmod 755 /bin/hook
echo 'before-snapshot = hook fsfreeze --freeze /srv/web
after-snapshot = hook fsfreeze --unfreeze /srv/web
after-run = hook
on-failure = hook' >>/etc/blkferry/replicas/web.conf
has_journal_to_replay() { dumpe2fs -h "$1" 2>/dev/null | grep -q needs_recovery; }
echo more >/srv/web/more
has_journal_to_replay /dev/mapper/above || fail 'the mounted file system has no journal to replay'
expect 0 systemctl start blkferry-refresh@web.service
is_fresh
! has_journal_to_replay /dev/vg1/web || fail 'the replica has a journal to replay'
expect 0 e2fsck -fn /dev/vg1/web
run='web vg0/web /dev/vg1/web'
logged "before-snapshot $run" "after-snapshot $run vg0/$snapshot" "after-run $run  0"

step 'killed while the file system is frozen: the unit unfreezes it, and the next run works'
touch /run/hold
systemctl start --no-block blkferry-refresh@web.service
becomes test ! -e /run/hold
expect 0 systemctl kill --signal=KILL blkferry-refresh@web.service
becomes systemctl is-failed blkferry-refresh@web.service
result signal
expect 0 timeout 20 dd if=/dev/zero of=/srv/web/after bs=1M count=1 conv=fsync
expect 1 booted blkferry replicas
says 137
[ "$(lvs --noheadings -o lv_name vg0 | grep -c blkferry)" = 2 ] || fail "$(lvs vg0)"
snapshot=$(lvs --noheadings -O -lv_time -o lv_name vg0 | tr -d ' ' | grep -m 1 blkferry)
logged "before-snapshot $run" "after-snapshot $run vg0/$snapshot" \
    "after-snapshot $run" "after-run $run  137" "on-failure $run  137"
expect 0 systemctl start blkferry-refresh@web.service
is_fresh
expect 0 booted blkferry replicas

step 'verified'
expect 0 systemctl start blkferry-verify@web.service
expect 0 booted blkferry replicas --json
says '"lastVerify":'

step 'without its source the unit fails, and the reason is listed'
lvrename -qq vg0 web away
expect 1 systemctl start blkferry-refresh@web.service
expect 0 systemctl is-failed blkferry-refresh@web.service
result exit-code
expect 1 booted blkferry replicas
says 'find volume: Failed to find logical volume "vg0/web"'
expect 0 systemctl disable --now blkferry-refresh@web.timer
