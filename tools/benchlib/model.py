# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Disks that are as slow as others: loop devices over the file that tools/bench-disk.c shows."""

import contextlib
import fcntl
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from . import machine
from .pair import Pair

COUNTS_PAGE = 4096


class Counts(NamedTuple):
    """What a model has done; `struct counts` of bench-disk.c."""

    reads: int
    writes: int
    seeks: int


@dataclass(frozen=True)
class Model:
    """What a disk can do, as bench-disk.c takes it."""

    title: str
    requests: float  # a second
    bandwidth: float  # bytes a second
    latency: float  # seconds
    seeks: float = 0  # a second; 0 without a moving head
    look_ahead: int = 0  # bytes
    write_cache: int = 0  # bytes

    @property
    def arguments(self):
        return [str(figure) for figure in (self.requests, self.bandwidth, self.latency, self.seeks,
                                           self.look_ahead, self.write_cache)]


class ModelDisk(machine.Device):
    """A model's loop device, at `loop`; its bytes are read and written behind it, without delay."""

    def __init__(self, place, program, file, model, size):
        with open(file, "wb") as stream:
            stream.truncate(size + COUNTS_PAGE)
        super().__init__(str(file), size, flags=0)
        self.steps = contextlib.ExitStack()
        # For an error before the end.
        place.steps.callback(self.steps.close)
        mount_point = file.with_suffix(".disk")
        mount_point.touch()
        process = subprocess.Popen([program, file, mount_point, *model.arguments],
                                   stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.steps.callback(machine.kill_group, process)
        if not process.stdout.readline():
            raise machine.Failure("bench-disk: ended at its start")
        self.steps.callback(subprocess.run, ["umount", "--lazy", mount_point])
        self.loop = subprocess.run(
            ["losetup", "--find", "--show", "--direct-io=on", mount_point], check=True,
            capture_output=True, text=True).stdout.strip()
        self.steps.callback(subprocess.run, ["losetup", "--detach", self.loop])
        if Path(f"/sys/block/{Path(self.loop).name}/loop/dio").read_text().strip() != "1":
            raise machine.Failure(f"{self.loop}: no direct I/O to the model")

    def close(self):
        super().close()
        self.steps.close()

    def flush(self):
        """Empties the write cache of the model, and drops the loop device's pages."""
        descriptor = os.open(self.loop, os.O_RDWR)
        try:
            os.fsync(descriptor)
            fcntl.ioctl(descriptor, machine.BLKFLSBUF)
        finally:
            os.close(descriptor)

    def counts(self):
        """What the model has done until now."""
        return Counts(*struct.unpack("3Q", os.pread(self.descriptor, 24, self.size)))


class ModelPair(Pair):
    """A pair on two disks of one model."""

    def __init__(self, place, size, model):
        self.model = model
        self.program = place.build("bench-disk")
        super().__init__(place, size)

    def device(self, place, file):
        return ModelDisk(place, self.program, file, self.model, self.size)


def given(place, disk, seconds=1):
    """What a model gives: bytes a second in order, and 4 KiB requests a second at random."""
    def reads(order, threads, length):
        done = subprocess.run(
            [place.floors, order, str(threads), str(length), "small", disk.loop, str(seconds)],
            check=True, stdout=subprocess.PIPE, text=True)
        return float(done.stdout)

    return {"sequential": reads("ascending", 2, 1 << 20) * (1 << 20),
            "random1": reads("random", 1, 4096), "random32": reads("random", 32, 4096)}
