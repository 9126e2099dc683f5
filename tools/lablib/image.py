# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The initramfs that the virtual machine boots: programs of the host, modules, scripts."""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from .kernel import CACHE, ROOT
from .process import Failure, command, output, program

GUEST = Path(__file__).resolve().parent / "guest"

# Real programs; busybox provides the rest of a system.
PROGRAMS = """
    dash lvm dmsetup pdata_tools mke2fs e2fsck mdadm sgdisk blockdev wipefs losetup blkid lsblk cmp
    cksum dd truncate udevadm flock stat sync setsid timeout xfs_io
""".split()
LINKS = {
    "lvm": "pvcreate pvs pvchange vgcreate vgs vgchange lvcreate lvremove lvs lvchange lvextend "
           "lvconvert lvrename vgreduce vgextend vgremove pvremove lvresize lvreduce pvmove",
    "pdata_tools": "thin_delta thin_dump thin_ls thin_check thin_metadata_size",
    "mke2fs": "mkfs.ext4",
    "e2fsck": "fsck.ext4",
}
# Directories of the kernel's modules that go in with all their dependencies.
MODULES = ("drivers/md", "drivers/block", "drivers/virtio/virtio_pci.ko",
           "drivers/scsi/scsi_debug.ko", "drivers/scsi/sd_mod.ko", "drivers/scsi/virtio_scsi.ko",
           "drivers/ata/ahci.ko", "drivers/nvme/host/nvme.ko", "fs/ext4",
           "crypto/crc32c_generic.ko", "crypto/aes_generic.ko", "crypto/cbc.ko", "crypto/ecb.ko",
           "crypto/hmac.ko", "crypto/sha256_generic.ko")
# Opened at run time by programs, so that no list of libraries has them.
LIBRARIES = ("libcurl.so.4",)


def base(modules):
    """The part of the initramfs that all scenarios share, as a cpio archive."""
    # The archive depends on this file as well.
    key = hashlib.sha256(Path(__file__).read_bytes())
    for path in [modules.parent, *map(program, ["busybox", *PROGRAMS])]:
        key.update(f"{path} {os.stat(path).st_mtime_ns}".encode())
    package = modules.parents[2].name
    archive = CACHE / f"base-{package}-{key.hexdigest()[:16]}.cpio"
    if not archive.exists():
        for old in CACHE.glob(f"base-{package}-*.cpio"):
            old.unlink()
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            tree = Path(work) / "tree"
            fill(tree, modules)
            pack(tree, Path(work) / "archive")
            os.rename(Path(work) / "archive", archive)
    return archive


def skeleton(tree, programs, links, libraries):
    """The directories of a system, busybox, programs of this machine, and their links and libraries."""
    for name in "bin etc lib/modules proc sys dev run tmp mnt var/lock/lvm var/run".split():
        (tree / name).mkdir(parents=True)
    for alias, target in (("sbin", "bin"), ("usr", "."), ("lib64", "lib")):
        (tree / alias).symlink_to(target)
    (tree / "var/run").rmdir()
    (tree / "var/run").symlink_to("/run")
    busybox = program("busybox")
    shutil.copy(busybox, tree / "bin/busybox")
    for applet in output(busybox, "--list").split():
        if applet != "busybox":
            (tree / "bin" / applet).symlink_to("busybox")
    for name in programs:
        add_program(tree, program(name), name)
    for name, others in links.items():
        for link in others.split():
            replace_link(tree / "bin" / link, name)
    for name in libraries:
        add_library(tree, library(name))


def fill(tree, modules):
    skeleton(tree, PROGRAMS, LINKS, LIBRARIES)
    add_modules(tree, modules, MODULES)
    rules = tree / "lib/udev"
    shutil.copytree("/usr/lib/udev", rules, ignore=shutil.ignore_patterns("hwdb*"))
    for path in rules.iterdir():
        if path.is_file() and os.access(path, os.X_OK):
            add_libraries(tree, path)
    (tree / "lib/systemd").mkdir()
    (tree / "lib/systemd/systemd-udevd").symlink_to("/bin/udevadm")
    (tree / "etc/passwd").write_text("root::0:0::/:/bin/dash\n")
    (tree / "etc/group").write_text("root:x:0:\ndisk:x:6:\ntty:x:5:\nkvm:x:104:\n")
    shutil.copy("/etc/mke2fs.conf", tree / "etc")


def replace_link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def add_program(tree, path, name):
    (tree / "bin" / name).unlink(missing_ok=True)
    shutil.copy(path, tree / "bin" / name)
    add_libraries(tree, path)


def add_libraries(tree, path):
    for found in re.finditer(r"(?:=> )?(/\S+) \(0x", output("ldd", path, quiet=True)):
        add_library(tree, Path(found[1]))


def add_library(tree, path):
    copy = tree / "lib" / path.name
    if not copy.exists():
        shutil.copy(path.resolve(), copy)
        add_libraries(tree, path)


def library(name):
    found = re.search(rf"{re.escape(name)} .*=> (\S+)", output("ldconfig", "-p"))
    if not found:
        raise Failure(f"{name}: not found on this machine")
    return Path(found[1])


def add_modules(tree, modules, prefixes):
    """Modules by the beginnings of their paths, and their dependencies, according to depmod(8)."""
    listing = tree / "lib/modules" / modules.name
    depends = {}
    # As it would write it, and then more tables, whose lines look otherwise.
    for line in output("depmod", "-n", "-b", modules.parents[2], modules.name).splitlines():
        if line.startswith("kernel/"):
            name, _, needs = line.partition(":")
            depends[name] = needs.split()
    wanted = [name for name in depends
              if any(name.startswith(f"kernel/{prefix}") for prefix in prefixes)]
    for name in {*wanted, *(need for name in wanted for need in depends[name])}:
        (listing / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(modules / name, listing / name)
    for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
        shutil.copy(modules / name, listing)
    command("depmod", "-b", tree, modules.name)


def product(name):
    """A program of this package that only scenarios run, which `# programs:` in their head names."""
    command(ROOT / "tools/release", CACHE, name)
    return CACHE / name


def overlay(programs, script, directory):
    """The additions of one scenario: its programs with libraries, the guest's scripts, the scenario."""
    tree = Path(directory) / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "lib").mkdir()
    for name, path in programs.items():
        add_program(tree, path, name)
    shutil.copytree(ROOT / "packaging/systemd", tree / "lib/systemd/system")
    shutil.copytree(ROOT / "udev", tree / "lib/udev/rules.d")
    shutil.move(tree / "lib/udev/rules.d/blkferry-disk-units", tree / "lib/udev")
    for path in GUEST.iterdir():
        shutil.copy(path, tree / path.name)
    (tree / "etc/lvm").mkdir(parents=True)
    shutil.move(tree / "lvm.conf", tree / "etc/lvm/lvm.conf")
    if script:
        shutil.copy(script, tree / "scenario")
    archive = Path(directory) / "overlay.cpio"
    pack(tree, archive)
    return archive


def pack(tree, archive):
    names = "\0".join(str(path.relative_to(tree)) for path in [tree, *sorted(tree.rglob("*"))])
    with open(archive, "wb") as stream:
        done = subprocess.run(
            ["cpio", "--quiet", "--null", "--create", "--format=newc", "--owner=+0:+0",
             "--reproducible"],
            cwd=tree, input=names.encode(), stdout=stream, stderr=subprocess.PIPE)
    if done.returncode != 0:
        raise Failure(f"cpio: {done.stderr.decode().strip()}")
