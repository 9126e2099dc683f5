# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The virtual machines: another kernel without a privilege, and disks that are removed afterwards."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from abc import ABC, abstractmethod
from pathlib import Path

from . import image, kernel
from .process import program

MEMORY = 1024  # MiB
# A boot takes seconds, on a loaded machine minutes. A kernel that does not run here ends at once.
BOOT_SECONDS = 300
DISKS = ("512M",) * 4

# The running machines.
_running = set()


class Machine(ABC):
    """A way to run another kernel."""

    name: str

    @abstractmethod
    def kernel(self):
        """The kernel that it boots; downloaded if it is missing."""

    @abstractmethod
    def words(self, initramfs, disks, arguments):
        """The command that runs it, on this terminal; disks are pairs of bus and path."""

    def prepare(self):
        """Makes the files that several machines share; not safe for several threads at once."""
        image.base(self.kernel().modules)

    @contextlib.contextmanager
    def booting(self, programs, script, disks, arguments):
        """The command that boots it; its files exist until the end of the `with`."""
        base = image.base(self.kernel().modules)
        with tempfile.TemporaryDirectory(prefix="blkferry-lab.", dir=_directory()) as directory:
            initramfs = Path(directory) / "initramfs"
            overlay = image.overlay(programs, script, directory)
            with open(initramfs, "wb") as stream:
                for archive in (base, overlay):
                    with open(archive, "rb") as part:
                        shutil.copyfileobj(part, stream)
            paths = []
            for number, disk in enumerate(disks):
                bus, _, size = disk.rpartition(":")
                path = f"{directory}/disk{number}"
                paths.append((bus, path))
                subprocess.run(["truncate", "-s", size, path], check=True)
            # A kernel that is a program has its memory in a file there.
            yield ["env", f"TMPDIR={directory}",
                   *self.words(initramfs, paths, f"quiet panic=-1 {arguments}")]

    def _run(self, programs, script, disks, arguments, seconds):
        with self.booting(programs, script, disks, arguments) as words:
            process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, start_new_session=True)
            _running.add(process)
            is_late = threading.Event()

            def end():
                is_late.set()
                os.killpg(process.pid, signal.SIGKILL)

            timer = threading.Timer(seconds, end)
            timer.start()
            try:
                console = process.stdout.read()
            finally:
                timer.cancel()
                if process.poll() is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                _running.discard(process)
            return console.decode(errors="replace").replace("\r", ""), not is_late.is_set()

    def boots(self):
        """Whether it runs on this host."""
        console, _ = self._run({}, None, (), "lab=boot", BOOT_SECONDS)
        return "LAB passed" in console

    def run(self, programs, script, disks, seconds):
        """Boots it, and returns what it printed, and whether it ended in time."""
        return self._run(programs, script, disks, "lab=run", seconds)

    def shell(self, binary):
        """Boots it to a shell on this terminal."""
        with self.booting({"blkferry": binary}, None, DISKS, "lab=shell") as words:
            subprocess.run(words)


class UserMode(Machine):
    """A kernel that is a program: one processor, slow at system calls alone."""

    name = "user"

    def kernel(self):
        return kernel.for_user_mode()

    def words(self, initramfs, disks, arguments):
        return [
            str(self.kernel().image), f"mem={MEMORY}M", f"initrd={initramfs}", "rdinit=/init",
            f"uml_dir={initramfs.parent}/", "con=null", "con0=fd:0,fd:1", "pty.legacy_count=0",
            *arguments.split(),
            *(f"ubd{number}={path}" for number, (_, path) in enumerate(disks)),
        ]


class Emulated(Machine):
    """qemu without acceleration: a whole machine, slow at everything."""

    name = "emulated"

    def kernel(self):
        return kernel.for_machines()

    def words(self, initramfs, disks, arguments):
        # A processor that is old: wide vector instructions are slow to emulate.
        words = [
            str(program("qemu-system-x86_64")), "-accel", "tcg,thread=multi", "-cpu", "Nehalem",
            "-smp", "1", "-m", str(MEMORY), "-nographic", "-no-reboot", "-nodefaults",
            "-serial", "mon:stdio" if os.isatty(0) else "stdio",
            "-kernel", str(self.kernel().image), "-initrd", str(initramfs),
            "-append", f"console=ttyS0 mitigations=off {arguments}",
        ]
        for number, (bus, path) in enumerate(disks):
            name = f"disk{number}"
            words += ["-drive",
                      f"file={path},format=raw,if=none,id={name},cache=unsafe,discard=unmap"]
            for device in BUSES[bus].format(name=name).split():
                words += ["-device", device]
        return words


# The device options that make a disk of a drive, for each bus.
BUSES = {
    "": "virtio-blk-pci,drive={name}",
    "nvme": "nvme,drive={name},serial={name}",
    "sata": "ich9-ahci,id=ahci-{name} ide-hd,bus=ahci-{name}.0,drive={name}",
    "scsi": "virtio-scsi-pci,id=scsi-{name} scsi-hd,bus=scsi-{name}.0,drive={name}",
}


MACHINES = {machine.name: machine for machine in (UserMode(), Emulated())}


def machine(name=None):
    """The machine of that name, ready for several at once; without a name the fast one, if it runs here."""
    chosen = MACHINES[name or UserMode.name]
    chosen.prepare()
    if name or chosen.boots():
        return chosen
    print("tools/lab: User-mode Linux does not run here, so qemu emulates a processor",
          file=sys.stderr)
    return machine(Emulated.name)


def _directory():
    """The directory of disks and boot files while machines run: in memory, if there is enough."""
    shared = Path("/dev/shm")
    if shared.is_dir() and shutil.disk_usage(shared).free >= 8 << 30:
        return shared
    return None


def end_all():
    """Ends all running machines; threads that wait for them continue."""
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
