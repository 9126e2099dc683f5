# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The virtual machine: qemu without acceleration, disks that are gone afterwards."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

from . import image

MEMORY = "1024"  # MiB

# Those that run now.
_running = set()
DISKS = ("512M",) * 4


@contextlib.contextmanager
def machine(programs, script, disks, arguments):
    """The command that boots it; what it needs is there until the end of the `with`."""
    kernel, modules = image.kernel()
    base = image.base(modules)
    with tempfile.TemporaryDirectory(prefix="blkferry-lab.") as directory:
        initramfs = Path(directory) / "initramfs"
        overlay = image.overlay(programs, script, directory)
        with open(initramfs, "wb") as stream:
            for archive in (base, overlay):
                with open(archive, "rb") as part:
                    shutil.copyfileobj(part, stream)
        # A processor that is old: wide vector instructions are slow to emulate.
        words = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "Nehalem", "-smp", "1",
            "-m", MEMORY, "-nographic", "-no-reboot", "-nodefaults", "-serial", "stdio",
            "-kernel", str(kernel), "-initrd", str(initramfs),
            "-append", f"console=ttyS0 quiet panic=-1 mitigations=off {arguments}",
        ]
        for number, size in enumerate(disks):
            path = f"{directory}/disk{number}"
            subprocess.run(["truncate", "-s", size, path], check=True)
            words += ["-drive", f"file={path},format=raw,if=virtio,cache=unsafe,discard=unmap"]
        yield words


def run(programs, script, disks, seconds):
    """Boots it, and returns what it printed, and whether it ended in time."""
    with machine(programs, script, disks, "lab=run") as words:
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


def end_all():
    """Ends all that run; whoever waits for them goes on."""
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def shell(binary):
    """Boots it to a shell on this terminal."""
    with machine({"blkferry": binary}, None, DISKS, "lab=shell") as words:
        words[words.index("stdio")] = "mon:stdio"
        subprocess.run(words)
