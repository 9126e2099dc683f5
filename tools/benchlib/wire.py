# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The bytes that blkferry sends, what a delay costs it, and the memory of both sides.

The bytes are what the sockets carry, headers of HTTP included, those of TCP and IP not.
"""

import contextlib
import random
import statistics

from . import machine, memory, peers, servers
from .pair import CASES, changes

LIMIT = 600  # seconds for one run
DELAY = 50  # milliseconds, each way
CLIENTS = 8
SEED = 20260103


def space(size):
    """The bytes that the images take beside the devices."""
    return max(size // CLIENTS * (CLIENTS + 1), 2 * memory.DATA << 20)


def recorded(benchmark, name, work):
    """The result of `work`; nothing if it fails, and then its reason is among the missing."""
    try:
        return work()
    except machine.Failure as failure:
        benchmark.missing[name] = str(failure)
        return None


def relayed(benchmark, direction, case, delay):
    """One run through the relay; returns seconds and bytes on the wire."""
    ferry = peers.blkferry(benchmark.options.binary, direction, benchmark.pair)
    way = ferry.ways[0]

    def client():
        port = servers.free_port()
        with servers.Server(benchmark.place, way.server(port), port), \
                servers.Relay(benchmark.place, port, delay) as relay:
            seconds = benchmark.place.run(way.client(relay.port, case), limit=LIMIT).seconds
            up, down, connections = relay.totals()
            if connections < 1 or up + down == 0:
                raise machine.Failure("nothing went through the relay")
            return seconds, up, down, connections

    try:
        return benchmark.pair.timed(ferry.name, case, client)
    except machine.Failure:
        benchmark.pair.restore()
        raise


def measure_wire(benchmark):
    """Bytes on the wire, the most of all rounds."""
    result = {}
    print(f"\nBytes on the wire\n  {'':50} {'to server':>11} {'from it':>11} {'connections':>12}")
    for direction in peers.DIRECTIONS:
        for case in ("identical", "random1"):
            name = f"wire, {direction}, {CASES[case]}"
            runs = recorded(benchmark, name, lambda: [
                relayed(benchmark, direction, case, 0) for _ in range(benchmark.options.rounds)])
            if runs is None:
                continue
            _, up, down, connections = max(runs, key=lambda run: run[1] + run[2])
            result[f"{direction} {case}"] = {
                "toServer": up, "fromServer": down, "connections": connections}
            print(f"  {direction + ', ' + CASES[case]:50} {up:11} {down:11} {connections:12}")
    return result


def measure_delay(benchmark):
    """Identical devices through the relay with and without the delay, in turn."""
    result = {}
    print(f"\nIdentical, {DELAY} ms each way\n"
          f"  {'':14} {'without s':>10} {'with s':>10} {'more':>8}")
    for direction in peers.DIRECTIONS:
        runs = recorded(benchmark, f"delay, {direction}", lambda: [
            [relayed(benchmark, direction, "identical", delay)[0] for delay in (0, DELAY)]
            for _ in range(benchmark.options.rounds)])
        if runs is None:
            continue
        without, with_ = (statistics.median(seconds) for seconds in zip(*runs))
        result[direction] = {"without": without, "with": with_, "seconds": runs}
        print(f"  {direction:14} {without:10.3f} {with_:10.3f} {with_ - without:8.3f}")
    return result


def measure_memory(benchmark):
    """Peak memory of client and server, in bytes."""
    result = {}
    print(f"\nPeak memory, MiB\n  {'':42} {'client':>8} {'server':>8}")
    works = {f"{direction}, all changed": lambda direction=direction: changed(benchmark, direction)
             for direction in peers.DIRECTIONS}
    works["push, 1 TiB with 100 MiB of data"] = lambda: sparse(benchmark)
    works[f"{CLIENTS} clients at once, pull, all changed"] = lambda: crowd(benchmark)
    for name, work in works.items():
        peaks = recorded(benchmark, f"memory, {name}", work)
        if peaks is not None:
            result[name] = {"client": peaks[0], "server": peaks[1]}
            print(f"  {name:42} {peaks[0] / 2**20:8.1f} {peaks[1] / 2**20:8.1f}")
    return result


def changed(benchmark, direction):
    """The devices at the defaults, not as a whole copy."""
    ferry = peers.blkferry(benchmark.options.binary, direction, benchmark.pair)
    way = ferry.ways[0]

    def client():
        port = servers.free_port()
        with servers.Server(benchmark.place, way.server(port), port) as server:
            figures = benchmark.place.run(way.client(port, ""), limit=LIMIT)
            return figures.peak, server.peak_memory()

    try:
        return benchmark.pair.timed(ferry.name, "all", client)
    except machine.Failure:
        benchmark.pair.restore()
        raise


@contextlib.contextmanager
def exported_directory(benchmark, name, rights):
    """A server with a new directory; gives it, the start of its images' URLs, and the server."""
    directory = benchmark.place.directory / name
    directory.mkdir()
    port = servers.free_port()
    command = [benchmark.options.binary, "serve", "--listen", f"{servers.HOST}:{port}",
               "--export", f"{directory}/{rights}"]
    try:
        with servers.Server(benchmark.place, command, port) as server:
            yield directory, f"http://{servers.HOST}:{port}", server
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def sparse(benchmark):
    """A sparse image pushed into an empty one of the same size."""
    offsets = sorted(random.Random(SEED).sample(
        range(0, memory.SPARSE_SIZE, machine.CHUNK), memory.DATA))
    source = benchmark.place.directory / "sparse.source"
    try:
        with exported_directory(benchmark, "exported", ":rw") as (directory, url, server):
            target = directory / "sparse.target"
            memory.write_image(source, memory.SPARSE_SIZE, offsets, random.Random(SEED))
            memory.write_image(target, memory.SPARSE_SIZE, [], None)
            figures = benchmark.place.run(
                [benchmark.options.binary, "-q", str(source), f"{url}{target}"], limit=LIMIT)
            if not memory.equal(source, target, offsets):
                raise machine.Failure("sparse image: target differs after the run")
            return figures.peak, server.peak_memory()
    finally:
        source.unlink(missing_ok=True)


def crowd(benchmark):
    """Many clients pull one image, each onto its own; together they pull as much as a device."""
    size = benchmark.pair.size // CLIENTS // machine.CHUNK * machine.CHUNK or machine.CHUNK
    offsets = range(0, size, machine.CHUNK)
    targets = [benchmark.place.directory / f"crowd.target{number}" for number in range(CLIENTS)]
    try:
        with exported_directory(benchmark, "crowd", "") as (directory, url, server):
            source = directory / "crowd.source"
            memory.write_image(source, size, offsets, random.Random(SEED))
            for target in targets:
                # Random data too, and no chunk of it the source's.
                memory.write_image(target, size, offsets, random.Random(SEED + 1))
            with contextlib.ExitStack() as stack:
                runs = [stack.enter_context(machine.Run(
                    benchmark.place,
                    [benchmark.options.binary, "-q", f"{url}{source}", str(target)]))
                    for target in targets]
                peak = max(run.figures(limit=LIMIT).peak for run in runs)
            for target in targets:
                if not memory.equal(source, target, offsets):
                    raise machine.Failure(f"{target.name}: differs after the run")
            return peak, server.peak_memory()
    finally:
        for target in targets:
            target.unlink(missing_ok=True)


def goals(result, size):
    """The targets for the wire, the delay and the memory, met or missed."""
    found = []
    for direction in peers.DIRECTIONS:
        for case, text, whole in (
                ("identical", "part of the size, %", size / 100),
                ("random1", "times the changed bytes",
                 sum(length for _, length in changes("random1", size)))):
            entry = result["wire"].get(f"{direction} {case}")
            figure = (entry["toServer"] + entry["fromServer"]) / whole if entry else None
            found.append(machine.goal(f"{direction}, {CASES[case]}, bytes on the wire, {text}",
                                      figure, 0.03 if case == "identical" else 1.15))
        entry = result["delay"].get(direction)
        found.append(machine.goal(
            f"{direction}, identical, seconds more with {DELAY} ms each way",
            entry["with"] - entry["without"] if entry else None, 1.5))
    peaks = result["memory"]
    names = [f"{direction}, all changed" for direction in peers.DIRECTIONS]
    names.append("push, 1 TiB with 100 MiB of data")
    for name in names:
        for side in ("client", "server"):
            figure = peaks[name][side] / 2**20 if name in peaks else None
            found.append(machine.goal(f"peak memory, {name}, {side}, MiB", figure, 128))
    name = f"{CLIENTS} clients at once, pull, all changed"
    found.append(machine.goal(f"peak memory, {name}, server, MiB",
                              peaks[name]["server"] / 2**20 if name in peaks else None, 256))
    return found
