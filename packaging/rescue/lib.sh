# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
#
# What the programs of the rescue system share. What they know about a disk is in $state/disks/NAME:
#   seq      the kernel's number of this disk; another disk of the same name has another one
#   title    its name, size, model and serial number
#   number   its number on the screen; the last one that is written
#   asked    exists once the first read has begun; in it, the seconds since the boot
#   answer   yes or error, once the disk has answered
#   content  the signatures on it
#   allowed  exists while it may be written

export PATH=/bin HOME=/root LVM_SUPPRESS_FD_WARNINGS=1 MDADM_NO_UDEV=1
state=/run/rescue

# word NAME: the value of NAME=VALUE on the kernel's command line; of several, the last one.
word() { tr ' ' '\n' </proc/cmdline | sed -n "s|^$1=||p" | tail -n 1; }

# consoles: the terminals of the kernel's messages. tty0 is the screen that is shown, tty1 at first.
consoles() { tr ' ' '\n' </sys/class/tty/console/active | sed 's/^tty0$/tty1/'; }

# attribute FILE: its first line without blanks at its ends; nothing if there is no such file.
attribute() {
    local text=
    [ ! -r "$1" ] || read -r text <"$1" 2>/dev/null
    echo "$text"
}

# human BYTES: such as 931.5 GiB.
human() {
    awk -v bytes="$1" 'BEGIN {
        split("B KiB MiB GiB TiB PiB", units, " ")
        for (unit = 1; bytes >= 1024 && unit < 6; unit++) bytes /= 1024
        text = sprintf("%.1f", bytes)
        sub(/\.0$/, "", text)
        print text " " units[unit]
    }'
}

# bytes NAME: the size of a block device.
bytes() { echo $(($(attribute "/sys/class/block/$1/size") * 512)); }

# identity NAME: the model and serial number of a disk, and its WWN if there is no number.
identity() {
    local dir=/sys/block/$1 model serial
    model=$(attribute $dir/device/model)
    serial=$(attribute $dir/serial)
    [ -n "$serial" ] || serial=$(attribute $dir/device/serial)
    # SCSI and SATA: a page of the disk with four bytes in front of the number.
    [ -n "$serial" ] || serial=$(tail -c +5 $dir/device/vpd_pg80 2>/dev/null | tr -dc '!-~')
    [ -n "$serial" ] || serial=$(wwn "$1")
    echo $model $serial
}

# wwn NAME: the world wide name that the kernel knows of a disk.
wwn() {
    local text
    text=$(attribute "/sys/block/$1/device/wwid")
    [ -n "$text" ] || text=$(attribute "/sys/block/$1/wwid")
    echo "$text"
}

# disks: the names of all disks that were found, in the order of their numbers.
disks() {
    for file in $state/disks/*/number; do
        [ -e "$file" ] || continue
        file=${file%/number}
        echo "$(attribute "$file/number") ${file##*/}"
    done | sort -n | sed 's/^[0-9]* //'
}

# parts NAME: the disk and its partitions, as device files.
parts() {
    echo "/dev/$1"
    for part in /sys/block/$1/$1*; do [ ! -d "$part" ] || echo "/dev/${part##*/}"; done
}

# usable: the disks that have answered and are read-only, with their partitions.
usable() {
    for name in $(disks); do
        [ "$(attribute $state/disks/$name/answer)" = yes ] || continue
        [ -e $state/disks/$name/allowed ] || parts "$name"
    done
}

# write_lvm_conf: LVM reads no other disks than usable ones, and makes no volume writable.
write_lvm_conf() {
    {
        echo 'devices { use_devicesfile = 0 obtain_device_list_from_udev = 0'
        echo 'external_device_info_source = "none"'
        printf 'global_filter = [ "a|^/dev/md|", '
        usable | sed 's/.*/"a|^&$|", /' | tr -d '\n'
        echo '"r|.*|" ] }'
        echo 'activation { udev_sync = 0 udev_rules = 0 monitoring = 0'
        echo "read_only_volume_list = [ $(sed 's/.*/"&"/' $state/groups 2>/dev/null | paste -sd, -) ] }"
        echo 'global { use_lvmpolld = 0 }'
        echo 'backup { backup = 0 archive = 0 }'
    } >/etc/lvm/lvm.conf.new
    mv /etc/lvm/lvm.conf.new /etc/lvm/lvm.conf
}

# release NAME: removes volumes and arrays that use a disk or partition; fails if one is in use.
release() {
    local holder
    for holder in /sys/class/block/$1/holders/* /sys/class/block/$1/$1*/holders/*; do
        [ -e "$holder" ] || continue
        holder=${holder##*/}
        release "$holder" || return 1
        case $holder in
            dm-*) dmsetup remove --retry --noudevsync "$(attribute "/sys/block/$holder/dm/name")" ;;
            md*) retry mdadm --quiet --stop "/dev/$holder" ;;
            *) false ;;
        esac || return 1
    done
    # Names of volumes that are gone.
    find /dev -maxdepth 2 -type l ! -exec test -e {} \; -exec rm {} \;
}

# allow NAME: makes a disk writable, for this machine and for clients, and tells why it cannot.
allow() {
    local dir=$state/disks/$1
    : >$dir/allowed
    # One that has begun may still use the disk.
    timeout 60 sh -c "while [ -e $state/assembling ]; do sleep 1; done"
    if ! within 60 release "$1"; then
        rm $dir/allowed
        echo "/dev/$1 is in use: a client may be reading a volume or an array on it, or it does not answer"
        return 1
    fi
    if ! within 10 blockdev --setrw "/dev/$1"; then
        # If it answers later, it is made read-only again.
        forbid "$1"
        echo "/dev/$1 cannot be made writable, or does not answer"
        return 1
    fi
}

# forbid NAME: the disk is examined anew, which makes it read-only. Sessions that write to it end.
forbid() {
    sed -i "\|^/dev/$1:rw$|d" $state/exports
    reload
    rm -f $state/disks/$1/allowed $state/disks/$1/answer $state/disks/$1/asked
}

# seconds: since the boot.
seconds() { cut -d. -f1 /proc/uptime; }

# probe BUS NAME: offers a device to the drivers, if the kernel does not do that for devices of this bus.
# It ends when the device has answered.
probe() {
    [ "$(attribute "/sys/bus/$1/drivers_autoprobe")" = 0 ] && [ ! -e "/sys/bus/$1/devices/$2/driver" ] ||
        return
    echo "$2" >"/sys/bus/$1/drivers_probe"
}

# within SECONDS COMMAND...: its output and status, or 124 if it has not ended by then. It goes on, since a
# process that waits for a disk cannot be killed.
within() {
    local limit=$(($(seconds) + $1)) ended=$(mktemp $state/within.XXXXXX) status=124
    shift
    {
        "$@" >$ended.output
        echo $? >$ended
    } >/dev/null 2>&1 &
    until [ -s $ended ] || [ $(seconds) -ge $limit ]; do sleep 0.1; done
    cat $ended.output
    [ ! -s $ended ] || { status=$(attribute $ended) && rm $ended $ended.output; }
    return $status
}

# retry COMMAND...: until it succeeds, five times: what another program has just closed is busy for a moment.
retry() {
    for _ in 1 2 3 4 5; do
        "$@" && return
        sleep 1
    done
    return 1
}

# reload: the server reads the list of exports again.
reload() { kill -HUP "$(attribute $state/server.pid)" 2>/dev/null; }
