# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Two loop devices of random data on one machine, in four cases, several rounds, interleaved.

The floor is both devices read with O_DIRECT and nothing else, by the number of threads, the read
size and the kind of memory (pages of 4 KiB or 2 MiB) that turn out fastest here. Before every run the target is brought into the case's
state, and the page cache forgets both devices; after it, source and target are compared. Neither
is timed. The backing files are in memory, so that what is measured is the program and not a disk;
--directory puts them elsewhere. rsync does not flush what it writes; the others do.
"""

import itertools
import os
import random
import subprocess
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


def changes(case, size):
    """The ranges that a case changes, as (offset, length); the same for every tool and round."""
    if case == "random1":
        blocks = random.Random(SEED).sample(range(size // BLOCK), size // BLOCK // 100)
        return [(block * BLOCK, BLOCK) for block in sorted(blocks)]
    end = {"identical": 0, "first10": size // 10 // BLOCK * BLOCK, "all": size}[case]
    return [(offset, min(machine.CHUNK, end - offset)) for offset in range(0, end, machine.CHUNK)]


def commands(binary, source, target):
    """What is compared: name and command line."""
    tools = {
        "blkferry": [binary, "sync", "--quiet", source, target],
        "dd": ["dd", f"if={source}", f"of={target}", "iflag=direct", "oflag=direct", "bs=1M",
               "conv=fdatasync", "status=none"],
        "qemu-img": ["qemu-img", "convert", "-n", "-W", "-t", "none", "-T", "none", "-f", "raw",
                     "-O", "raw", source, target],
        "rsync": ["rsync", "-I", "--inplace", "--no-whole-file", "--copy-devices",
                  "--write-devices", source, target],
    }
    help_text = subprocess.run(["rsync", "--help"], capture_output=True, text=True).stdout
    if "--copy-devices" not in help_text:
        print("rsync is left out: this version knows no --copy-devices")
        del tools["rsync"]
    return tools


def fastest_floor(place, source, target):
    """Tries thread counts and read sizes; returns the command that is fastest here, and all."""
    tried = []
    for threads, size, pages in itertools.product(
            (1, 2, 4, 8, 16), (128 << 10, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20),
            ("small", "huge")):
        command = [place.helper, "floor", str(threads), str(size), pages, source, target]
        seconds = machine.summary([place.run(command) for _ in range(3)])["median"]
        tried.append({"threads": threads, "readSize": size, "pages": pages, "seconds": seconds,
                      "command": command})
    # The best of many is mostly the luckiest, so the leaders run again, in turn.
    leaders = sorted(tried, key=lambda entry: entry["seconds"])[:6]
    again = [[place.run(entry["command"]) for entry in leaders] for _ in range(11)]
    for entry, runs in zip(leaders, zip(*again)):
        entry["seconds"] = machine.summary(list(runs))["median"]
    best = min(leaders, key=lambda entry: entry["seconds"])
    command = best["command"]
    print(f"Floor: {best['threads']} threads reading {best['readSize'] >> 10} KiB "
          f"into {best['pages']} pages are the fastest of {len(tried)} ways")
    for entry in tried:
        del entry["command"]
    return command, tried


def measure(options, place):
    if os.geteuid() != 0:
        raise machine.Failure("loop devices need root")
    place.need(2 * options.size + (64 << 20))
    source = machine.Device(place.loop("source", options.size), options.size)
    target = machine.Device(place.loop("target", options.size), options.size)
    try:
        return measure_devices(options, place, source, target)
    finally:
        source.close()
        target.close()


def measure_devices(options, place, source, target):
    print(f"Two loop devices of {options.size >> 20} MiB on files in {options.directory}, "
          f"{options.rounds} rounds")
    generator = random.Random(SEED)
    for offset in range(0, options.size, machine.CHUNK):
        chunk = generator.randbytes(machine.CHUNK)
        source.write(offset, chunk)
        target.write(offset, chunk)
    floor, tried = fastest_floor(place, source.path, target.path)
    tools = {"floor": floor, **commands(options.binary, source.path, target.path)}
    runs = {case: {tool: [] for tool in tools} for case in CASES}
    for number in range(options.rounds):
        for case in CASES:
            # Another one goes first in every round, so that none has the better neighbour.
            order = list(tools)
            order = order[number % len(order):] + order[:number % len(order)]
            for tool in order:
                runs[case][tool].append(
                    timed(place, tools[tool], tool, case, source, target))
    result = {"floorSearch": tried, "commands": tools, "cases": {}}
    for case, by_tool in runs.items():
        result["cases"][case] = {tool: machine.summary(list_) for tool, list_ in by_tool.items()}
        print_table(CASES[case], result["cases"][case])
    result["goals"] = goals(result["cases"])
    return result


def timed(place, command, tool, case, source, target):
    """One run from the case's state; the target is equal to the source before and after."""
    ranges = changes(case, source.size) if tool != "floor" else []
    for offset, length in ranges:
        target.write(offset, source.read(offset, length).translate(INVERTED))
    for device in (source, target):
        device.flush()
    run = place.run(command)
    if tool != "floor":
        offset = machine.first_difference(source, target)
        if offset is not None:
            raise machine.Failure(f"{tool}, {case}: target differs after the run at {offset}")
    return run


def print_table(title, figures):
    floor = figures["floor"]["median"]
    print(f"\n{title}\n  {'':10} {'median s':>9} {'min':>8} {'max':>8} {'to floor':>9} {'peak MiB':>9}")
    for tool, entry in figures.items():
        print(f"  {tool:10} {entry['median']:9.3f} {entry['min']:8.3f} {entry['max']:8.3f} "
              f"{entry['median'] / floor:9.2f} {entry['peakMemory'] / 2**20:9.1f}")


def goals(cases):
    """What was to be reached, and whether it was."""
    def median(case, tool):
        return cases[case][tool]["median"]

    found = []

    def goal(text, figure, limit):
        found.append({"text": f"{text}: {figure:.3f}, limit {limit:.3f}",
                      "figure": figure, "limit": limit, "reached": figure <= limit})

    for case, limit in (("identical", 1.25), ("random1", 1.6)):
        goal(f"{CASES[case]}, ratio to the floor",
             median(case, "blkferry") / median(case, "floor"), limit)
    goal("all changed, seconds, no slower than the faster of dd and qemu-img",
         median("all", "blkferry"), min(median("all", "dd"), median("all", "qemu-img")))
    for case in CASES:
        if "rsync" in cases[case]:
            goal(f"{CASES[case]}, seconds, no slower than rsync", median(case, "blkferry"),
                 median(case, "rsync"))
    peak = max(cases[case]["blkferry"]["peakMemory"] for case in CASES) / 2**20
    goal("peak memory in all cases, MiB", peak, 64)
    return found
