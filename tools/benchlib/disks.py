# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Two model disks of a kind on one machine: hard disks, SATA SSDs, volumes of a cloud.

blkferry, dd and rsync run in turn, in four cases, several rounds. bench-disk.c has the models, and
each is measured first. Before every run the benchmark brings the target into the case's state and
drops both devices from the page cache. After it, it compares source and target. Neither is timed,
and both go past the model. All three programs flush.

For hard disks the tables have how often the heads of source and target moved to another place.
"""

import statistics

from . import facts, machine
from .model import Model, ModelPair, given
from .pair import CASES, DIRECTORY, rotated  # noqa: F401

SIZE = "384M"
ROUNDS = 3
# What counts as no slower.
NOISE = 1.05
# How often the safety gate moves each head, whatever the size of the disks, by a seek or over a gap
# that takes as long. It reads one disk after the other. A disk of a usual size would not show it.
GATE_MOVES = 8
# Where a comparison of hard disks goes back to write, and a plain copy does not. docs/speed.md says
# more. The goals are the same there, and are missed.
GOES_BACK = ("first10", "random1")

MODELS = {
    "hdd": Model("Hard disks, 150 seeks/s, 160 MB/s", 20_000, 160e6, 0.0001, seeks=150,
                 look_ahead=2 << 20, write_cache=16 << 20),
    "ssd": Model("SATA SSDs, 90000 requests/s, 530 MB/s, 80 µs", 90_000, 530e6, 0.00008),
    "cloud": Model("Cloud volumes, 3000 requests/s, 125 MB/s, 0.7 ms", 3_000, 125e6, 0.0007),
}
PARTS = MODELS


def commands(binary, source, target, case, model):
    """The programs: name and command line."""
    whole = ["--whole-file"] if case == "all" else []
    # The default on disks that blkferry knows to have moving heads. It cannot see the model's.
    threads = ["--concurrency=2"] if model.seeks else []
    tools = {
        "blkferry": [binary, "sync", "--quiet", *whole, *threads, source, target],
        "dd": ["dd", f"if={source}", f"of={target}", "iflag=direct", "oflag=direct", "bs=1M",
               "conv=fdatasync", "status=none"],
    }
    if all(facts.first_line("rsync", "--help", contains=option)
           for option in ("--copy-devices", "--fsync")):
        tools["rsync"] = ["rsync", "-I", "--inplace", "--fsync", *(whole or ["--no-whole-file"]),
                          "--copy-devices", "--write-devices", source, target]
    return tools


def measure(options, place):
    models = {options.only: MODELS[options.only]} if options.only else MODELS
    facts.print_header(facts.description(options.binary, options.directory))
    place.need(2 * options.size + (64 << 20))
    result = {"models": {}, "goals": []}
    for name, model in models.items():
        with ModelPair(place, options.size, model) as pair:
            found = measure_model(options, place, pair)
        result["models"][name] = found
        result["goals"] += goals(model, found)
    return result


def measure_model(options, place, pair):
    model = pair.model
    found = {"given": given(place, pair.source), "cases": {}}
    print(f"\n{model.title}; two of {options.size >> 20} MiB, {options.rounds} rounds\n"
          f"  the model gives {found['given']['sequential'] / 1e6:.0f} MB/s in order, "
          f"{found['given']['random1']:.0f} requests of 4 KiB a second at random, "
          f"{found['given']['random32']:.0f} with 32 at once")
    for case in CASES:
        tools = commands(options.binary, pair.source.loop, pair.target.loop, case, model)
        runs = {tool: [] for tool in tools}
        for number in range(options.rounds):
            for tool in rotated(list(tools), number):
                runs[tool].append(pair.timed(
                    tool, case, lambda: with_seeks(pair, lambda: place.run(tools[tool]))))
        found["cases"][case] = {
            tool: {**machine.summary([run for run, _ in list_]),
                   "seeks": [statistics.median(side) for side in zip(*(s for _, s in list_))]}
            for tool, list_ in runs.items()}
        print_table(CASES[case], found["cases"][case], model)
    return found


def with_seeks(pair, run):
    """What `run` returns, and the seeks of the source and of the target meanwhile."""
    before = [disk.counts().seeks for disk in (pair.source, pair.target)]
    figures = run()
    after = [disk.counts().seeks for disk in (pair.source, pair.target)]
    return figures, [a - b for a, b in zip(after, before)]


def fastest_peer(figures):
    return min(entry["median"] for tool, entry in figures.items() if tool != "blkferry")


def print_table(title, figures, model):
    columns = {"to peer": lambda _, entry: f"{entry['median'] / fastest_peer(figures):.2f}"}
    if model.seeks:
        # Of the source's head and of the target's.
        columns["seeks"] = lambda _, entry: "{:.0f} / {:.0f}".format(*entry["seeks"])
    machine.print_table(title, figures, columns)


def goals(model, found):
    """The models must give what they claim, and blkferry must be no slower than the faster peer."""
    name = model.title.split(",")[0]
    start = 2 * GATE_MOVES / model.seeks if model.seeks else 0
    met = [machine.goal_at_least(f"{name}, in order, part of the bandwidth",
                                 found["given"]["sequential"] / model.bandwidth, 0.95)]
    for case, figures in found["cases"].items():
        bound = ", bounded by the heads" if model.seeks and case in GOES_BACK else ""
        met.append(machine.goal(
            f"{name}, {CASES[case]}{bound}, seconds, no slower than dd and rsync",
            figures["blkferry"]["median"], NOISE * fastest_peer(figures) + start))
    if model.seeks:
        # Two threads change places now and then, mostly at the start.
        seeks = max(found["cases"]["identical"]["blkferry"]["seeks"])
        met.append(machine.goal(f"{name}, identical, seeks of a head", seeks, GATE_MOVES + 2))
    return met
