# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Writes the results of `compare` as a page of the documentation."""

from .peers import DIRECTIONS

TOOLS = ("blkferry", "pdiffcopy", "rsync")

INTRODUCTION = """\
# Benchmarks

pdiffcopy came with a benchmark. It makes two files equal, changes the first 10, 20 … 100 % of the target, and times
the run that makes them equal again. This page does the same for blkferry, pdiffcopy and rsync. Its generator is

    tools/bench compare

which runs as root, on your machine too. Nothing of the page is written by hand.

![Time of a sync at growing change](benchmarks.svg)
"""

METHOD = """\
## How it was measured

The devices are two loop devices of {size} MiB of random data, whose files are in memory. The server listens on the
loopback interface of the same machine. It is restarted for each run, before the timing begins. Times are those of the
whole client process, from its start to its end. Figures are medians of {rounds} rounds, with the least and the greatest
in brackets. The three programs are interleaved, and another one goes first in each round. Before each run the benchmark
changes every byte of the first part of the target, and drops both devices from the page cache. After each run it
compares source and target in full.

- All three compare at each step. Where most has changed, `--whole-file` would be faster for all of them.
- pdiffcopy takes a device for empty, so it works on the files behind the devices, which are in the page cache. blkferry
  and rsync work on the devices.
- blkferry flushes the target before it ends. The others do not.
- rsync reads the target first, then the source. It is made for files whose content moves, which does not happen on a
  disk.
- pdiffcopy was tried at 50 % with its defaults, with {many}, and with 64 KiB blocks. The fastest counts.
- Bytes on the wire are what the loopback interface counted during the run, both ways, headers of TCP and IP included.
- Two loop devices in memory stand for very fast disks. On a slow disk or network all programs are as slow as that. Then
  the bytes that are read and sent count.
"""


def written(result, machine):
    """The page as Markdown."""
    many = f"`--concurrency={2 * machine['processors']}`"
    parts = [INTRODUCTION, conditions(machine)]
    parts += [table(direction, result["steps"]) for direction in DIRECTIONS]
    parts += [METHOD.format(size=result["size"] >> 20, rounds=result["rounds"], many=many),
              commands(result["commands"])]
    if result["missing"]:
        parts.append("## Missing\n\n" + "".join(
            f"- {name}: {reason}\n" for name, reason in result["missing"].items()))
    return "\n".join(parts)


def conditions(machine):
    kernel = ".".join(machine["kernel"].split(".")[:2])
    rows = [("processor", f"{machine['cpu']}, {machine['processors']} of them"),
            ("memory", f"{machine['memory'] / 2**30:.0f} GiB"),
            ("system", f"{machine['system']}, Linux {kernel}"),
            ("blkferry", machine["blkferry"]), ("pdiffcopy", machine["pdiffcopy"].split("=")[-1]),
            ("rsync", " ".join(machine["rsync"].split()[2:3]))]
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def table(direction, steps):
    names = [f"{tool} {direction}" for tool in TOOLS]
    lines = [f"## {direction.capitalize()}", "",
             "| changed | blkferry, s | pdiffcopy, s | rsync, s | pdiffcopy / blkferry "
             "| rsync / blkferry | wire, MiB: blkferry | pdiffcopy | rsync |",
             "|---:|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for case, figures in steps.items():
        ferry, *others = entries = [figures.get(name) for name in names]
        cells = [f"{case.removeprefix('first')} %"]
        cells += [f"{entry['median']:.2f} ({entry['min']:.2f}-{entry['max']:.2f})" if entry else "-"
                  for entry in entries]
        cells += [f"{other['median'] / ferry['median']:.1f}" if ferry and other else "-"
                  for other in others]
        cells += [f"{entry['wire'] / 2**20:.1f}" if entry else "-" for entry in entries]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def commands(lines):
    parts = ["## Commands\n\nThe commands on the server and on the client, by program and direction:\n"]
    parts += [f"{name}:\n\n    {line['server']}\n    {line['client']}\n"
              for name, line in lines.items()]
    return "\n".join(parts)
