#!/usr/bin/env python3
"""Kills a writer in the middle of its work, again and again, and looks for what it had acknowledged.

Started by crash.sh, inside A's network namespace. In each round A runs under load until it dies: at a random moment by
kill -9, or by itself at a named fail point (SAMPAN_FAILPOINT=name:n ends the process at the n-th pass of that point).
With a device, the file system under A's data is cut off instead, without a flush of its log, so that what was not
synced is gone as in a power cut. Then A starts on the same data, and
 - it is ready in bounded time,
 - every acknowledged blob and manifest is there, byte for byte, all that was deleted is gone, and each tag shows its last
   acknowledged value, or one that was sent later and never answered,
 - its sequence is not lower than any that was seen before.
Garbage is collected all the time, with next to no grace, and the disk is verified before each round. At the fail points
of the quarantine a blob was damaged before.
B follows A all the time and must never see an older root than one it saw, and the same root for the same sequence.
"""

import argparse
import fcntl
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

from node import SETTLED, Broken, Collector, Node
from load import KEPT, Ledger, Load, check
from oci import Registry

UNDER_LOAD = 6   # seconds that a fail point has to be reached
AFTER_CUT = 0.3  # seconds of load after a device was cut: nothing may be acknowledged then that is not kept
READ = 30        # seconds that the answer to a read may take
DYING = 5        # seconds from a broken connection to the end of the process
CONVERGE = 60    # seconds until B shows A's last root
ENOUGH = 4       # with this many rounds for each fail point, all must have been reached
SAMPLE = 60      # blobs, and manifests, of earlier rounds that are read again after each
A, B = "127.0.0.1:5000", "10.77.0.2:5000"

# Linux: fs/ext4/ext4.h
EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NOLOGFLUSH = (2).to_bytes(4, sys.byteorder)


class Watch(threading.Thread):
    """Asks B what it sees of A, all the time."""

    def __init__(self, follower):
        super().__init__(daemon=True)
        self.follower, self.broken = follower, []
        self.sequence, self.roots = -1, {}

    def run(self):
        try:
            while True:
                self.look()
                time.sleep(0.25)
        except (subprocess.SubprocessError, ValueError) as failure:
            self.broken.append(f"B's status cannot be read: {failure}")

    def look(self):
        status = self.follower.status()
        for seen in (status or {}).get("follows", []):
            sequence, root = seen.get("sequence"), seen.get("root")
            if sequence is None or root is None:
                continue
            if sequence < self.sequence:
                self.broken.append(f"B went back from sequence {self.sequence} to {sequence}")
            if self.roots.setdefault(sequence, root) != root:
                self.broken.append(f"B saw two roots for sequence {sequence}: {self.roots[sequence]} and {root}")
            self.sequence = max(self.sequence, sequence)


class Disk:
    """A's data on ext4 on a loop device, which can be cut off."""

    def __init__(self, image, mount_point):
        self.image, self.mount_point = image, mount_point
        os.makedirs(mount_point, exist_ok=True)
        subprocess.run(["truncate", "--size", "8G", image], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
        self.mount()

    def mount(self):
        subprocess.run(["mount", "-o", "loop", self.image, self.mount_point], check=True)

    def cut(self):
        directory = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, NOLOGFLUSH)
        finally:
            os.close(directory)

    def replay(self):
        """Unmounts and mounts again: what is on the device now is what a machine finds after a power cut."""
        subprocess.run(["umount", self.mount_point], check=True)
        self.mount()


class Run:
    def __init__(self, options):
        self.options, self.random = options, random.Random(options.seed)
        work = options.work
        self.disk = Disk(f"{work}/disk.img", f"{work}/disk") if options.device else None
        data = f"{work}/disk/a" if self.disk else f"{work}/a"
        self.writer = Node(options.sampan, data, f"{work}/a.log")
        self.writer.start()
        self.writer.ready(A)
        name = self.writer.status()["name"]
        self.follower = Node(options.sampan, f"{work}/b", f"{work}/b.log", "--addr", "0.0.0.0:5000", "--follow", name,
                             namespace=options.follower_namespace)
        self.follower.start()
        self.follower.ready(B)
        self.watch = Watch(self.follower)
        self.watch.start()
        self.collects, self.verifies = self.writer.knows("gc"), self.writer.knows("verify")
        self.ledger, self.sequence, self.slowest, self.collections = Ledger(self.collects), 0, 0.0, 0
        listed = subprocess.run([options.sampan, "failpoints"], capture_output=True, text=True, check=False)
        self.fail_points = [] if self.disk else listed.stdout.split()
        self.random.shuffle(self.fail_points)
        self.reached = set()
        if not self.fail_points and not self.disk:
            raise Broken("the binary names no fail points")

    def round(self, number):
        fail_point = self.fail_point(number)
        if fail_point and fail_point.startswith("adopt."):
            # What a follower does is cut short at the follower.
            self.follower.kill()
            self.follower.start(fail_point)
            self.follower.ready(B)
            fail_point = None
        damages = bool(fail_point) and fail_point.startswith("quarantine.")
        self.writer.kill(self.random.choice([signal.SIGKILL, signal.SIGTERM]))
        self.verify()
        damaged = self.damage() if damages else None
        self.writer.start(fail_point)
        if damages:
            died_itself = self.writer.ready(A) is None or self.find(damaged)
        else:
            died_itself = self.writer.ready(A) is None or self.load(number, fail_point)
        if died_itself and not fail_point:
            raise Broken("A died without being killed")
        if died_itself:
            self.reached.add(fail_point.split(":")[0])
        if self.disk:
            self.disk.replay()
        self.writer.start()
        ready = self.writer.ready(A)
        if ready is None:
            raise Broken("A does not start on its data any more")
        self.slowest = max(self.slowest, ready)
        if self.follower_fell():
            self.follower.start()
            if self.follower.ready(B) is None:
                raise Broken("B does not start on its data any more")
        if damaged:
            self.heal(damaged)
        touched = len(self.ledger.touched)
        wrong = check(self.ledger, A, SAMPLE) + self.watch.broken + self.sequence_wrong()
        if wrong:
            raise Broken("\n  ".join(wrong[:20]))
        how = f"at {fail_point}" if died_itself else "device cut" if self.disk else "kill -9"
        if fail_point and not died_itself:
            how += f", {fail_point} not reached"
        blobs, manifests, tags = self.ledger.counts()
        print(f"round {number}: {how}; {touched} things touched, {blobs} blobs, {manifests} manifests and {tags} tags "
              f"there, ready in {ready * 1000:.0f} ms, B at sequence {self.watch.sequence}", flush=True)

    def follower_fell(self):
        """Waits a moment for a fail point that B was started with."""
        armed = self.follower.fail_point
        if not armed:
            return False
        deadline = time.monotonic() + CONVERGE
        while self.follower.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.follower.alive():
            self.follower.kill()
        else:
            self.reached.add(armed.split(":")[0])
        return True

    def fail_point(self, number):
        """Every other round, each point in turn."""
        if not self.fail_points or number % 2 == 0:
            return None
        name = self.fail_points[number // 2 % len(self.fail_points)]
        # A file of the journal is closed once in some hundred entries, and B adopts what A has time to publish.
        passes = [1] if name.startswith(("journal.rotate", "adopt.", "quarantine.")) else [1, 1, 2, 5, 20]
        return f"{name}:{self.random.choice(passes)}"

    # ---- a blob that the disk has damaged

    def damage(self):
        """Turns a bit of a blob, with A down. Its key, or None where there is none yet."""
        keys = [key for key, blob in self.ledger.blobs.items() if self.ledger.must_be(key, blob) == KEPT]
        if not keys:
            return None
        key = self.random.choice(keys)
        with open(self.writer.blob_file(key[1]), "r+b") as file:
            file.seek(self.random.randrange(self.ledger.blobs[key].size))
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 1]))
        return key

    def find(self, damaged):
        """Has A put it into quarantine; true if A died by that."""
        if damaged:
            self.writer.command("verify", "--repair")
        # The command hears of it before the process is gone.
        dying = time.monotonic() + SETTLED
        while self.writer.alive() and time.monotonic() < dying:
            time.sleep(0.002)
        died_itself = not self.writer.alive()
        self.writer.kill()
        return died_itself

    def heal(self, damaged):
        """A verification finds what is still damaged, and a push brings the blob back wherever it was."""
        self.writer.command("verify", "--repair")
        registry, blob = Registry(A, timeout=READ), self.ledger.blobs[damaged]
        answer = registry.blob(*damaged)
        if answer.status != 404 and (answer.status != 200 or answer.body != blob.bytes()):
            raise Broken(f"a damaged blob is answered with {answer.status} and {len(answer.body)} bytes")
        registry.push_blob(damaged[0], blob.bytes())
        registry.close()

    def verify(self):
        """A is down. Its disk must be in order all the same."""
        if not self.verifies:
            return
        answer = self.writer.command("verify")
        if answer.returncode != 0:
            said = (answer.stdout + answer.stderr).strip()[-2000:]
            raise Broken(f"sampan verify ends with {answer.returncode}: {said}")

    def load(self, number, fail_point):
        """Runs the load until A is dead; true if it died by itself."""
        # Entries with many paths fill a file of the journal soon.
        rotate = bool(fail_point) and fail_point.startswith("journal.rotate")
        load = Load(self.ledger, A, self.options.seed * 1_000_003 + number, **({"many": 20} if rotate else {}))
        collector = Collector(self.writer, "0s", "200ms")
        if self.collects:
            collector.start()
        deadline = time.monotonic() + (UNDER_LOAD if fail_point else self.random.uniform(0.05, 1.5))
        while time.monotonic() < deadline and load.running():
            time.sleep(0.002)
        collector.ended.set()
        wrong = list(self.ledger.wrong)
        if self.disk:
            # The ioctl leaves the process running, and a sync that it overtakes may still say that all is well.
            load.dark.set()
            self.disk.cut()
            time.sleep(AFTER_CUT)
        # Its connections break before it is gone.
        dying = time.monotonic() + DYING
        while fail_point and not load.running() and self.writer.alive() and time.monotonic() < dying:
            time.sleep(0.002)
        died_itself = not self.writer.alive()
        self.writer.kill()
        load.stop()
        if self.collects:
            collector.stop()
            self.collections += collector.times
        self.ledger.wrong.clear()
        wrong += collector.broken
        if wrong:
            raise Broken(f"A was healthy, and yet: {wrong[0]}")
        return died_itself

    def sequence_wrong(self):
        status = self.writer.status()
        if status is None:
            return ["A answers HTTP, but not its control socket"]
        floor = max(self.sequence, self.watch.sequence)
        if status["sequence"] < floor:
            return [f"A's sequence fell from {floor} to {status['sequence']}"]
        self.sequence = status["sequence"]
        return []

    def converge(self):
        """At the end everything acknowledged is read again from A, and B shows A's root and tags."""
        wrong = check(self.ledger, A)
        deadline = time.monotonic() + CONVERGE
        while time.monotonic() < deadline:
            mine, theirs = self.writer.status(), self.follower.status()
            if mine and theirs and [f["root"] for f in theirs["follows"]] == [mine["root"]]:
                break
            time.sleep(0.1)
        else:
            wrong.append(f"B does not show A's root after {CONVERGE} s")
        registry = Registry(B, timeout=60)
        for (repository, name), tag in self.ledger.tags.items():
            answer = registry.manifest(repository, name, "HEAD")
            seen = answer.headers["Docker-Content-Digest"] if answer.status == 200 else None
            if seen != tag.acknowledged:
                wrong.append(f"B shows {seen} for {repository}:{name}, A {tag.acknowledged}")
        wrong += self.watch.broken
        if wrong:
            raise Broken("\n  ".join(wrong[:20]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sampan", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--follower-namespace", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--device", choices=["ext4"])
    options = parser.parse_args()
    number = 0
    try:
        run = Run(options)
        for number in range(1, options.rounds + 1):
            run.round(number)
        run.converge()
        run.writer.kill(signal.SIGTERM)
        run.verify()
        blobs, manifests, tags = run.ledger.counts()
        unreached = sorted(set(run.fail_points[:(options.rounds + 1) // 2]) - run.reached)
        if unreached and options.rounds >= ENOUGH * len(run.fail_points):
            raise Broken(f"fail points that no load reached: {' '.join(unreached)}")
    except (Broken, OSError, http.client.HTTPException, subprocess.SubprocessError) as broken:
        sys.exit(f"crash: FAILED in round {number}, --seed {options.seed}:\n  {broken or repr(broken)}")
    gone = len(run.ledger.blobs) + len(run.ledger.manifests) - blobs - manifests
    print(f"crash: {options.rounds} rounds, seed {options.seed}: all of {blobs} blobs, {manifests} manifests and {tags} tags "
          f"kept, and {gone} things gone that were to go; {run.collections} collections; slowest start "
          f"{run.slowest * 1000:.0f} ms; {len(run.reached)} fail points reached" + (f", not reached: {' '.join(unreached)}" if unreached else ""))


if __name__ == "__main__":
    main()
