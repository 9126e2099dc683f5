# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Peak memory of a sync, whatever the size: a sparse image of 1 TiB with 100 MiB of data, and a
pair of --size (1 GiB) that differs everywhere. And the time that `blkferry --version` takes.
"""

import os
import random
from pathlib import Path

from . import machine

DIRECTORY = Path("/var/tmp")
SEED = 20260102
SPARSE_SIZE = 1 << 40
DATA = 100  # MiB, each in a place of its own
STARTS = 51


def write_image(path, size, offsets, generator):
    with open(path, "wb") as stream:
        stream.truncate(size)
        for offset in offsets:
            stream.seek(offset)
            stream.write(generator.randbytes(machine.CHUNK))
        os.fsync(stream.fileno())


def equal(one, other, offsets):
    """Whether two files have the same size and the same chunks at offsets."""
    with open(one, "rb") as first, open(other, "rb") as second:
        for offset in offsets:
            first.seek(offset)
            second.seek(offset)
            if first.read(machine.CHUNK) != second.read(machine.CHUNK):
                return False
    return os.stat(one).st_size == os.stat(other).st_size


def measure_pair(options, place, name, size, source_offsets, target_offsets):
    """Syncs two images several times, each time onto a new target."""
    generator = random.Random(SEED)
    source, target = (str(place.directory / f"{name}.{side}") for side in ("source", "target"))
    write_image(source, size, source_offsets, generator)
    runs = []
    for _ in range(options.rounds):
        write_image(target, size, target_offsets, generator)
        runs.append(place.run([options.binary, "sync", "--quiet", source, target]))
        if not equal(source, target, source_offsets):
            raise machine.Failure(f"{name}: target differs after the run")
    figures = machine.summary(runs)
    figures["allocated"] = [os.stat(path).st_blocks * 512 for path in (source, target)]
    os.unlink(source)
    os.unlink(target)
    print(f"{name:32} {figures['peakMemory'] / 2**20:7.1f} MiB peak, {figures['median']:7.3f} s, "
          f"allocated {' and '.join(str(size >> 20) for size in figures['allocated'])} MiB")
    return figures


def measure(options, place):
    place.need(2 * max(options.size, DATA << 20) + (64 << 20))
    print(f"Images in {options.directory}, {options.rounds} rounds")
    sparse = sorted(random.Random(SEED).sample(range(0, SPARSE_SIZE, machine.CHUNK), DATA))
    dense = range(0, options.size, machine.CHUNK)
    result = {
        "sparse": measure_pair(options, place, "1 TiB with 100 MiB of data", SPARSE_SIZE, sparse,
                               []),
        "dense": measure_pair(options, place, f"{options.size >> 20} MiB, all changed",
                              options.size, dense, dense),
        "start": machine.summary(
            [place.run([options.binary, "--version"]) for _ in range(STARTS)]),
    }
    start = result["start"]
    print(f"{'--version':32} {start['peakMemory'] / 2**20:7.1f} MiB peak, "
          f"{start['median'] * 1000:7.2f} ms, from {start['min'] * 1000:.2f} "
          f"to {start['max'] * 1000:.2f} ms in {STARTS} starts")
    goals = [(f"peak memory, {name}, MiB", result[key]["peakMemory"] / 2**20, 64)
             for key, name in (("sparse", "1 TiB sparse"), ("dense", "all changed"))]
    # Whole allocation units of the file system may round a little up.
    goals.append(("allocated by the target, MiB",
                  result["sparse"]["allocated"][1] / 2**20,
                  result["sparse"]["allocated"][0] / 2**20 + 1))
    goals.append(("--version, ms", start["median"] * 1000, 20))
    result["goals"] = [
        {"text": f"{text}: {figure:.2f}, limit {limit:.2f}", "figure": figure, "limit": limit,
         "reached": figure <= limit} for text, figure, limit in goals]
    return result
