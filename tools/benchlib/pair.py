# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Two loop devices of random data, and the cases of differences between them."""

import os
import random
from pathlib import Path

from . import machine

DIRECTORY = Path("/dev/shm")
BLOCK = 4096
SEED = 20260101
INVERTED = bytes(255 - byte for byte in range(256))  # random data stays random, every byte differs
CASES = {
    "identical": "identical",
    "first10": "first 10 % changed",
    "random1": "1 % of the 4 KiB blocks changed",
    "all": "all changed",
}


def title(case):
    """What a case is called; `first20` is one, too."""
    return CASES.get(case) or f"first {case.removeprefix('first')} % changed"


def changes(case, size):
    """The ranges that a case changes, as (offset, length); the same for every tool and round."""
    if case == "random1":
        blocks = random.Random(SEED).sample(range(size // BLOCK), size // BLOCK // 100)
        return [(block * BLOCK, BLOCK) for block in sorted(blocks)]
    percent = {"identical": 0, "all": 100}.get(case)
    if percent is None:
        percent = int(case.removeprefix("first"))
    end = size * percent // 100 // BLOCK * BLOCK
    return [(offset, min(machine.CHUNK, end - offset)) for offset in range(0, end, machine.CHUNK)]


class Pair:
    """A source and a target, equal between the runs."""

    def __init__(self, place, size):
        if os.geteuid() != 0:
            raise machine.Failure("loop devices need root")
        self.size = size
        self.files = [place.directory / name for name in ("source", "target")]
        self.source, self.target = (self.device(place, file) for file in self.files)
        generator = random.Random(SEED)
        for offset in range(0, size, machine.CHUNK):
            chunk = generator.randbytes(machine.CHUNK)
            self.source.write(offset, chunk)
            self.target.write(offset, chunk)

    def device(self, place, file):
        """The device over a new file."""
        return machine.Device(place.loop(file.name, self.size), self.size)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.source.close()
        self.target.close()

    def restore(self):
        """Makes the target equal to the source, whatever a failed run has left."""
        for offset in range(0, self.size, machine.CHUNK):
            self.target.write(offset, self.source.read(offset, machine.CHUNK))

    def zero_every_second_block(self):
        """Makes every second block of both devices zeros."""
        for offset in range(0, self.size, machine.CHUNK):
            chunk = bytearray(self.source.read(offset, machine.CHUNK))
            for start in range(0, machine.CHUNK, 2 * BLOCK):
                chunk[start:start + BLOCK] = bytes(BLOCK)
            self.source.write(offset, chunk)
            self.target.write(offset, chunk)

    def timed(self, tool, case, run, output=None):
        """What `run` returns, started from the case's state; the pair is equal before and after.

        Without a case nothing is changed and nothing compared. `output` is the file that a tool
        writes instead of the target.
        """
        for offset, length in changes(case, self.size) if case else []:
            self.target.write(offset, self.source.read(offset, length).translate(INVERTED))
        for device in (self.source, self.target):
            device.flush()
        figures = run()
        if output:
            with open(output, "rb") as stream:
                is_equal = all(stream.read(machine.CHUNK) == self.source.read(offset, machine.CHUNK)
                               for offset in range(0, self.size, machine.CHUNK))
            os.unlink(output)
            for offset, length in changes(case, self.size):
                self.target.write(offset, self.source.read(offset, length))
            if not is_equal:
                raise machine.Failure(f"{tool}, {case}: {output} differs after the run")
        elif case:
            self.check(f"{tool}, {case}")
        return figures

    def check(self, what):
        offset = machine.first_difference(self.source, self.target)
        if offset is not None:
            raise machine.Failure(f"{what}: target differs after the run at {offset}")

    def fill_with_zeros(self, device):
        for offset in range(0, self.size, machine.CHUNK):
            device.write(offset, bytes(machine.CHUNK))


def rotated(names, number):
    """The names in the order of one round: another one goes first in every round, so that none
    has the better neighbour.
    """
    start = number % len(names)
    return names[start:] + names[:start]
