#!/usr/bin/env python3
"""Measures push-to-visible: pushes N new tags of a small image to one registry and asks another for each of them.

    latency.py push ADDRESS COUNT -- COMMAND...     pushes; COMMAND runs `latency.py watch ADDRESS` where the follower is
    latency.py watch ADDRESS                        reads "tag digest" lines, answers with the time of the first 200

Both processes read CLOCK_MONOTONIC of the same machine. A time is from the manifest's 201, as its client sees it, to
the first 200 of a HEAD on the follower, which is asked again every millisecond. Each tag is a manifest of its own, and
the follower's bytes must be those that were pushed.
"""

import os
import subprocess
import sys
import time

from oci import Registry, digest, manifest

REPOSITORY = "lan/latency"
GIVE_UP = 10  # seconds; a tag that is not seen by then counts as lost
PAUSE = 0.05  # seconds between two pushes: a person's or a CI's pace, not a load test


def watch(address):
    registry = Registry(address)
    for line in sys.stdin:
        tag, expected = line.split()
        deadline = time.monotonic() + GIVE_UP
        while True:
            answer = registry.manifest(REPOSITORY, tag, "HEAD")
            now = time.monotonic()
            if answer.status == 200 or now > deadline:
                break
            time.sleep(0.001)
        if answer.status != 200:
            print("lost", flush=True)
            continue
        body = registry.manifest(REPOSITORY, tag).body
        print(now if digest(body) == expected else "wrong", flush=True)


def push(address, count, command):
    registry = Registry(address)
    config = registry.push_blob(REPOSITORY, b"{}")
    layer = registry.push_blob(REPOSITORY, os.urandom(4096))
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    times, failed = [], []
    for number in range(count):
        tag = f"t{number:04}"
        name = registry.push_manifest(REPOSITORY, tag, manifest(config, [layer], number=str(number)))
        acknowledged = time.monotonic()
        print(tag, name, file=watcher.stdin, flush=True)
        seen = watcher.stdout.readline().strip()
        try:
            times.append((float(seen) - acknowledged) * 1000)
        except ValueError:
            failed.append(f"{tag}: {seen or 'the watcher ended'}")
        time.sleep(PAUSE)
    watcher.stdin.close()
    watcher.wait()
    times.sort()
    if times:
        p50, p99 = times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)]
        print(f"{len(times)} of {count} tags seen; p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {times[-1]:.1f} ms")
    if failed:
        sys.exit("not seen on the follower: " + ", ".join(failed))


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(sys.argv[2])
    else:
        push(sys.argv[2], int(sys.argv[3]), sys.argv[5:])
