"""What the figures mean: their titles and units, the bars that Sampan is held to, and the table that says both."""

import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections import namedtuple

# A bar: at most (or at least) `limit` times the figure of a peer, or `limit` itself where no peer is named.
# Where the peer's figure has another name, `of` says it.
Bar = namedtuple("Bar", "limit peer least of", defaults=(None, False, None))

EMPTY = "Sampan, empty"
HALF_AGAIN = [Bar(1.5, EMPTY)]

KUBO, GO = "kubo", "Go peer"
FASTER = [Bar(0.4, KUBO), Bar(0.4, GO)]
HALF = [Bar(0.5, KUBO), Bar(0.5, GO)]
NOT_SLOWER = [Bar(1, KUBO)]


def among_peers():
    """Figures of ipfs.sh."""
    parts = {"wall": ("wall", "s"), "cpu_sender": ("CPU of the sender", "s"), "cpu_receiver": ("CPU of the receiver", "s"),
             "memory_sender": ("memory, peak of the sender", "MiB"),
             "memory_receiver": ("memory, peak of the receiver", "MiB")}
    ways = {"fetch": ("cold fetch", {"wall": FASTER, "cpu_sender": HALF, "cpu_receiver": HALF}),
            "from_go": ("fetch by Sampan from the Go peer", {"wall": [Bar(1, GO, of="fetch.wall")]}),
            "to_go": ("fetch by the Go peer from Sampan", {"wall": [Bar(1, GO, of="fetch.wall")]}),
            "from_kubo": ("fetch by Sampan from kubo", {"wall": [Bar(1, KUBO, of="fetch.wall")]}),
            "to_kubo": ("fetch by kubo from Sampan", {"wall": [Bar(1, KUBO, of="fetch.wall")]})}
    for way, (title, bars) in ways.items():
        for part, (of_what, unit) in parts.items():
            yield f"{way}.{part}", (f"{title}, {of_what}", unit, bars.get(part, []))
    yield "resolve.follow", ("manifest to visible on a follower, median", "ms", [Bar(100)])
    for path, said in {"pubsub": "pubsub", "dht": "the DHT"}.items():
        for kind, peer in {"go": GO, "kubo": KUBO}.items():
            yield f"resolve.{path}.{kind}", (f"manifest to resolved by a {peer} over {said}, median", "ms", [Bar(None, peer)])
    yield "delay.trips", ("first byte of a layer at 100 ms, round trips", "", [Bar(3)])


# name of a figure -> title, unit, bars
FIGURES = {
    "idle.memory": ("memory, idle and empty", "MiB", [Bar(20)]),
    "push.wall": ("push of a layer, wall", "s", [Bar(0.5, "Distribution"), Bar(0.75, "zot")]),
    "push.cpu": ("push of a layer, server's CPU", "s", [Bar(0.5, "Distribution"), Bar(0.75, "zot")]),
    "push.memory": ("memory, peak of the push", "MiB", []),
    "pull.wall": ("pull of a layer, wall", "s", [Bar(1.3, "nginx"), Bar(None, "Distribution")]),
    "pull.cpu": ("pull of a layer, server's CPU", "s", [Bar(0.8, "Distribution"), Bar(None, "nginx")]),
    "layer.disk": ("disk beyond a layer", "%", [Bar(2)]),
    "eight.wall": ("8 pushes at once, wall", "s", [Bar(0.65, "Distribution"), Bar(0.9, "zot")]),
    "eight.cpu": ("8 pushes at once, server's CPU", "s", [Bar(0.65, "Distribution"), Bar(0.9, "zot")]),
    "eight.memory": ("memory, peak of 8 pushes", "MiB", [Bar(64)]),
    "get.rate": ("manifests by tag, 32 connections", "/s", [Bar(10, "Distribution", True), Bar(4, "zot", True)]),
    "get.cpu": ("manifests by tag, server's CPU", "µs", []),
    "tags.rate": ("tags with config and manifest, 4 connections", "/s", []),
    "tags.cpu": ("a tag with config and manifest, server's CPU", "ms", []),
    "tags.memory": ("memory, idle after the tags", "MiB", [Bar(32)]),
    "tags.memory_again": ("memory, idle after a restart with the tags", "MiB", [Bar(32)]),
    "tags.disk": ("disk of a tag with config and manifest", "KiB", [Bar(16)]),
    "write.bytes": ("written to disk for one more tag", "MiB", [Bar(1)]),
    "page.median": ("a page of a long list, median", "ms", [Bar(10)]),
    "page.p99": ("a page of a long list, 99th percentile", "ms", [Bar(10)]),
    "page.memory": ("memory that all pages of it take", "MiB", [Bar(1)]),
    "store.push": ("big store: push of a small image, wall", "ms", HALF_AGAIN),
    "store.push_cpu": ("big store: push of a small image, CPU", "ms", HALF_AGAIN),
    "store.pull": ("big store: pull of a small image, wall", "ms", HALF_AGAIN),
    "store.pull_cpu": ("big store: pull of a small image, CPU", "ms", HALF_AGAIN),
    "store.start": ("big store: start to first answer", "ms", HALF_AGAIN),
    "store.ready": ("big store: ready after an ordered stop", "ms", [Bar(200)]),
    "store.ready_killed": ("big store: ready after kill -9 under load", "ms", [Bar(200)]),
    "store.memory": ("big store: memory, idle", "MiB", []),
    "binary": ("binary", "MiB", [Bar(20)]),
    **dict(among_peers()),
}


def table(figures):
    """Lines of a Markdown table. `figures` is server -> figure -> value."""
    yield "| what | Sampan | beside | bar | ratio | met |"
    yield "|---|---:|---:|---:|---:|---|"
    for name, (title, unit, bars) in FIGURES.items():
        value = figures["Sampan"].get(name)
        if value is None:
            continue
        named = [bar.peer for bar in bars]
        others = [Bar(None, peer) for peer, seen in figures.items()
                  if peer != "Sampan" and peer not in named and name in seen]
        for bar in [*bars, *others]:
            yield line(title, unit, value, bar, figures.get(bar.peer, {}).get(bar.of or name))


def line(title, unit, value, bar, peer):
    shown = f"{amount(value)} {unit}"
    if bar.peer is None:
        ratio, beside, limit = value / bar.limit, "", f"{bar.limit} {unit}"
    elif peer is None:
        return f"| {title} | {shown} | {bar.peer} not measured | | | |"
    else:
        ratio, beside = value / peer if peer else float("inf"), f"{bar.peer} {amount(peer)}"
        limit = f"{bar.limit} × {bar.peer}" if bar.limit else ""
    if bar.limit is None:
        return f"| {title} | {shown} | {beside} | | {ratio:.2f} | |"
    reached = ratio if bar.peer else value
    met = reached >= bar.limit if bar.least else reached <= bar.limit
    limit = f"{'≥' if bar.least else '≤'} {limit}"
    return f"| {title} | {shown} | {beside} | {limit} | {ratio:.2f} | {'yes' if met else '**no**'} |"


def amount(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"


def machine(work):
    """Lines about where this is measured."""
    cpu = first(r"model name\s*:\s*(.*)", "/proc/cpuinfo")
    flags = first(r"flags\s*:\s*(.*)", "/proc/cpuinfo").split()
    memory = int(first(r"MemTotal:\s*(\d+)", "/proc/meminfo")) >> 20
    device, system = subprocess.check_output(["findmnt", "-n", "-o", "SOURCE,FSTYPE", "--target", work], text=True).split()[:2]
    yield f"- {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC, load before it {os.getloadavg()[0]:.1f}"
    yield (f"- {cpu}, {os.cpu_count()} cores, sha_ni {'yes' if 'sha_ni' in flags else 'no'}, {memory} GiB, "
           f"Linux {platform.release().split('-')[0]}")
    yield f"- data on {device} ({system})"


def versions(binaries):
    """One line for each: name of a server -> its binary."""
    for name, binary in binaries.items():
        flag = {"nginx": "-v", KUBO: "version"}.get(name, "--version")
        try:
            answer = subprocess.run([binary, flag], capture_output=True, text=True, timeout=30, check=False)
            said = (answer.stdout + answer.stderr).strip().splitlines()
        except OSError as failure:
            said = [str(failure)]
        # zot says the version of the spec first.
        found = said and (re.search(r'commit"?[: "]+(\w+)', said[0]) or re.search(r"v?(\d+\.\d+\.\d+\S*)", said[0]))
        yield f"- {name}: {found.group(1) if found else 'version unknown'}"


def first(pattern, path):
    with open(path, encoding="utf-8") as file:
        found = re.search(pattern, file.read())
    return found.group(1) if found else "0"


def main(path, work, *binaries):
    """The table of figures in lines `name, server, value`, each as often as it was taken."""
    taken = {}
    with open(path, encoding="utf-8") as lines:
        for line_of in lines:
            name, server, value = line_of.rstrip("\n").split("\t")
            taken.setdefault(server, {}).setdefault(name, []).append(float(value))
    figures = {server: {name: statistics.median(values) for name, values in named.items()} for server, named in taken.items()}
    print("\n".join([*machine(work), *versions(dict(binary.split("=", 1) for binary in binaries)), "", *table(figures)]))


if __name__ == "__main__":
    main(*sys.argv[1:])
