#!/usr/bin/env python3
"""Measures registries side by side and prints a Markdown table. Started by run.sh; README.md says how to read it."""

import argparse
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "outer"))

import report  # noqa: E402
import servers as servers_of  # noqa: E402
from rows import IN_TURNS, ROWS  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
SIZE, RUNS, TAGS, MANY = 1024, 3, 10_000, 100_000


def measure(options, servers):
    """server -> figure -> value"""
    figures = {name: {} for name in servers}
    for row in options.rows:
        work, about = ROWS[row]
        present = [servers[name] for name in about if name in servers]
        rounds = options.runs if row in IN_TURNS else 1
        seen = {}
        for number in range(rounds):
            for server in present:
                print(f"{row} {number + 1}/{rounds}: {server.name}", file=sys.stderr, flush=True)
                result = work(server, options)
                by_server = result if server.name in result else {server.name: result}
                for name, values in by_server.items():
                    seen.setdefault(name, []).append(values)
                if server.name != "nginx":
                    server.clear()
        for name, taken in seen.items():
            medians = {what: statistics.median(values[what] for values in taken) for what in taken[0]}
            figures.setdefault(name, {}).update(medians)
    return figures


def parse():
    parser = argparse.ArgumentParser()
    for name in ("work", "sampan", "distribution", "nginx"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--zot")
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(ROWS))
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--size", type=int, default=SIZE)
    parser.add_argument("--tags", type=int, default=TAGS)
    parser.add_argument("--many", type=int, default=MANY)
    parser.add_argument("--results")
    options = parser.parse_args()
    unknown = set(options.rows) - set(ROWS)
    if unknown:
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    whole = (options.rows, options.size, options.tags, options.many) == (list(ROWS), SIZE, TAGS, MANY)
    options.results = options.results or (f"{HERE}/RESULTS.md" if whole else None)
    return options


def main():
    options = parse()
    os.makedirs(f"{options.work}/static")
    binaries = {"nginx": options.nginx, "Distribution": options.distribution, "Sampan": options.sampan}
    if options.zot:
        binaries["zot"] = options.zot
    servers = {name: getattr(servers_of, name.lower())(binary, options.work) for name, binary in binaries.items()}
    head = [*report.machine(options.work), *report.versions(binaries),
            f"- a layer is {options.size} MiB, medians of {options.runs}; {options.tags:,} tags; long list and big store "
            f"{options.many:,} tags"]
    figures = measure(options, servers)
    text = "\n".join(["# Measured beside the peers", "", "README.md says how. Compare within this table only.", "", *head, "",
                      *report.table(figures), ""])
    print(text)
    if options.results:
        with open(options.results, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
