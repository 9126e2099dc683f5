# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Two loop devices of random data on one machine, in five cases, several rounds, interleaved.

In the last case every second block of the source is zeros, and the target is full of other data;
only blkferry and dd run there.

The floor is both devices read with O_DIRECT and nothing else, by the number of threads, the read
size and the kind of memory (pages of 4 KiB or 2 MiB) that turn out fastest here. Before every run
the benchmark brings the target into the case's state and drops both devices from the page cache.
After it, it compares source and target. Neither is timed. The backing files are in memory, so that
the times are those of the program and not of a disk; --directory puts them elsewhere. rsync does not
flush its writes; the others do.
"""

import subprocess

from . import machine
from .pair import CASES, DIRECTORY, Pair, fastest_floor, rotated  # noqa: F401

ZEROS = "every second 4 KiB zeros"


def commands(binary, source, target):
    """The programs: name and command line."""
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


def measure(options, place):
    place.need(2 * options.size + (64 << 20))
    with Pair(place, options.size) as pair:
        return measure_pair(options, place, pair)


def measure_pair(options, place, pair):
    print(f"Two loop devices of {options.size >> 20} MiB on files in {options.directory}, "
          f"{options.rounds} rounds")
    floor, tried = fastest_floor(place, "floor", pair)
    tools = {"floor": floor, **commands(options.binary, pair.source.path, pair.target.path)}
    runs = {case: {tool: [] for tool in tools} for case in CASES}
    for number in range(options.rounds):
        for case in CASES:
            for tool in rotated(list(tools), number):
                runs[case][tool].append(pair.timed(
                    tool, case if tool != "floor" else None, lambda: place.run(tools[tool])))
    result = {"floorSearch": tried, "commands": tools, "cases": {}}
    for case, by_tool in runs.items():
        result["cases"][case] = {tool: machine.summary(list_) for tool, list_ in by_tool.items()}
        print_table(CASES[case], result["cases"][case])
    result["cases"]["zeros"] = measure_zeros(options, place, pair, tools)
    print_table(ZEROS, result["cases"]["zeros"])
    result["goals"] = goals(result["cases"])
    return result


def measure_zeros(options, place, pair, tools):
    """Replaces a target full of data by a source in which every second block is zeros."""
    pair.zero_every_second_block()
    runs = {tool: [] for tool in ("floor", "blkferry", "dd")}
    for number in range(options.rounds):
        for tool in rotated(list(runs), number):
            # "all" fills the target: the inverse of zeros is data.
            runs[tool].append(pair.timed(
                tool, "all" if tool != "floor" else None, lambda: place.run(tools[tool])))
    return {tool: machine.summary(list_) for tool, list_ in runs.items()}


def print_table(title, figures):
    floor = figures["floor"]["median"]
    print(f"\n{title}\n  {'':10} {'median s':>9} {'min':>8} {'max':>8} {'to floor':>9} {'peak MiB':>9}")
    for tool, entry in figures.items():
        print(f"  {tool:10} {entry['median']:9.3f} {entry['min']:8.3f} {entry['max']:8.3f} "
              f"{entry['median'] / floor:9.2f} {entry['peakMemory'] / 2**20:9.1f}")


def goals(cases):
    """The speed targets, met or missed."""
    def median(case, tool):
        return cases[case][tool]["median"]

    found = []

    def goal(text, figure, limit):
        found.append(machine.goal(text, figure, limit))

    for case, limit in (("identical", 1.25), ("random1", 1.6)):
        goal(f"{CASES[case]}, ratio to the floor",
             median(case, "blkferry") / median(case, "floor"), limit)
    goal("all changed, seconds, no slower than the faster of dd and qemu-img",
         median("all", "blkferry"), min(median("all", "dd"), median("all", "qemu-img")))
    goal(f"{ZEROS}, seconds, no slower than twice dd",
         median("zeros", "blkferry"), 2 * median("zeros", "dd"))
    for case in CASES:
        if "rsync" in cases[case]:
            goal(f"{CASES[case]}, seconds, no slower than rsync", median(case, "blkferry"),
                 median(case, "rsync"))
    peak = max(cases[case]["blkferry"]["peakMemory"] for case in CASES) / 2**20
    goal("peak memory in all cases, MiB", peak, 64)
    return found
