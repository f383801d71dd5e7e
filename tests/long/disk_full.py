#!/usr/bin/env python3
"""Fills the disk under a registry, at one point after the other, and looks for what that breaks.

Started by disk-full.sh, inside A's network namespace. Each point has a new small file system. Workers push, mount, tag and
delete; at a moment that differs from point to point the disk fills: by layers that are pushed until no more are taken,
or by another file, which takes the reserve and leaves nothing, or next to nothing. A greedy one takes the room that the
ballast gives, too. While the disk is full,
 - each request is answered in bounded time, as always, or with 507 or 503, an OCI error that says why, and Retry-After,
 - pushes are refused, what was acknowledged comes whole, and what was refused is absent or whole,
 - deletes are taken, unless every byte is taken away from the ballast,
 - A lives, and if it is started again, it serves, or ends with one clear line.
When there is room again, A takes pushes without being started anew, lists are right, the disk verifies, and after a
kill -9 everything acknowledged is there.
"""

import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

from filler import Disk, Filler
from node import Broken, Node
from load import KEPT, LARGE, THREADS, Ledger, Worker, check
from oci import Refused, Registry, blobs_of, digest, manifest

SIZE, SMALL_SIZE = 300, 192  # MiB of the disk; the small one is filled by pushes alone, within seconds
DEADLINE = 15          # seconds for each answer
RECOVER = 10           # seconds from room on the disk to pushes and lists
BEFORE = (0.3, 0.9)    # seconds of load before the disk fills
WHILE_FULL = (0.3, 0.9)
AFTER = 0.3            # seconds of load when there is room again
FILLING = 60           # seconds that layers may take to fill the disk
LAYER = (4 << 20, 24 << 20)  # bytes of a layer that fills the disk
RESERVE = 64 << 20     # what A leaves free on so small a disk; pushes that would eat into it are refused
LEFT = [0, 4 << 10, 64 << 10, 1 << 20, 20 << 20]  # bytes that another file leaves free
A = "127.0.0.1:5000"

# When the disk fills.
PUSHES = "pushes of layers"
MOMENTS = [PUSHES, "during a layer", "between layer and manifest", "during a storm", "during collections", "during a fold",
           "before the first start", "before a start"]


class Full(Refused):
    """The answer to a request that the disk has no room for."""


class Checked(Registry):
    """Every answer is looked at: one that refuses for want of room raises Full, and must say so in order."""

    def __init__(self, address):
        super().__init__(address, timeout=DEADLINE)

    def request(self, method, path, body=None, due=None, **headers):
        try:
            answer = super().request(method, path, body, None, **headers)
        except TimeoutError as timeout:
            raise Broken(f"{method} {path}: no answer within {DEADLINE} s") from timeout
        except (OSError, http.client.HTTPException) as failure:
            raise Broken(f"{method} {path}: no answer: {failure!r}") from failure
        if answer.status in (503, 507):
            clean(f"{method} {path}", answer, method)
            raise Full(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        if answer.status >= 500:
            raise Broken(f"{method} {path}: {answer.status}: {answer.body[:300]!r}")
        if due is not None and answer.status != due:
            raise Refused(f"{method} {path}: {answer.status}, due was {due}: {answer.body[:300]!r}")
        return answer


def clean(what, answer, method):
    """An error of 507 or 503 in order."""
    if "Retry-After" not in answer.headers:
        raise Broken(f"{what}: {answer.status} without Retry-After")
    if method == "HEAD":
        return
    try:
        message = json.loads(answer.body)["errors"][0]["message"]
    except (ValueError, LookupError, TypeError) as failure:
        raise Broken(f"{what}: {answer.status} is no OCI error: {answer.body[:300]!r}") from failure
    due = ["the disk is full"] if answer.status == 507 else ["the disk is full", "the index is being built anew"]
    if not any(words in message for words in due):
        raise Broken(f"{what}: {answer.status} says {message!r}")


class Pusher(Worker):
    """Goes on when it is refused for want of room, and counts that."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.refused, self.done, self.refusal = 0, 0, None

    def run(self):
        self.registry = Checked(self.address)
        steps = dict(self.weights)
        try:
            while not self.ended.is_set():
                try:
                    getattr(self, self.random.choices(list(steps), list(steps.values()))[0])()
                    self.done += 1
                except Full as refusal:
                    self.refused += 1
                    self.refusal = str(refusal)
        except (Broken, Refused) as wrong:
            self.ledger.wrong.append(str(wrong))
        finally:
            self.registry.close()

    def layer(self):
        self.push_blob(lambda data: self.registry.push_blob(self.repository, data), self.random.getrandbits(64),
                       self.random.randrange(*LAYER))


# What the workers do, and how often. Every one pushes small blobs, too, so that there is something to name.
ALL = {"whole": 4, "chunked": 2, "shared": 1, "mount": 2, "tag": 4, "untagged": 1, "many": 1, "delete_tag": 1,
       "delete_manifest": 1, "delete_blob": 1, "again": 1}
LAYERS = {"layer": 1, "whole": 2, "tag": 1}
STORM = {"whole": 2, "tag": 6, "untagged": 4, "many": 2, "delete_tag": 4, "delete_manifest": 6}
LOADS = {PUSHES: {"layer": 4, "tag": 1}, "during a layer": LAYERS, "during a storm": STORM}


class Point:
    def __init__(self, options, number):
        self.options, self.number = options, number
        self.random = random.Random(options.seed * 1_000_003 + number)
        self.moment = MOMENTS[(number - 1 + options.seed) % len(MOMENTS)]
        self.left = self.random.choice(LEFT)
        self.greedy = self.random.random() < 0.5
        # How A is stopped and started while the disk is full, if at all.
        self.restart = self.random.choice([None, signal.SIGKILL, signal.SIGTERM])
        if self.moment == "before a start":
            self.restart = self.random.choice([signal.SIGKILL, signal.SIGTERM])
        # A collection without grace takes blobs that no manifest names.
        self.ledger = Ledger(collects=self.moment in (PUSHES, "during collections"))
        self.refused, self.refusal, self.loads, self.notes = 0, None, 0, []
        self.filler = None

    def describe(self):
        if self.moment == PUSHES:
            return f"{PUSHES}{self.restarted()}"
        greedy = ", and takes what becomes free" if self.greedy else ""
        return f"another file leaves {self.left >> 10} KiB {self.moment}{greedy}{self.restarted()}"

    def restarted(self):
        return f", {self.restart.name} and a start while full" if self.restart else ""

    # ---- the course of a point

    def run(self):
        size = SMALL_SIZE if self.moment == PUSHES else SIZE
        with Disk(f"{self.options.work}/disk.img", f"{self.options.work}/disk", size) as self.disk:
            self.node = Node(self.options.sampan, f"{self.disk.mount_point}/a", f"{self.options.work}/a.log")
            self.log_from = self.log_size()
            try:
                self.course()
            finally:
                if self.filler and self.filler.is_alive():
                    self.filler.ended.set()
                    self.filler.join()
                if self.node.process and self.node.alive():
                    self.node.kill()

    def course(self):
        if self.moment == "before the first start":
            self.fill()
            started = self.start_full()
        else:
            self.start()
            self.fill_under_load()
            started = True
        if started:
            self.while_full()
        if self.restart:
            if started:
                self.node.kill(self.restart)
            started = self.start_full()
            if started:
                self.while_full()
        self.make_room(started)
        self.recover()
        self.afterwards()

    def start(self):
        self.node.start()
        if self.node.ready(A) is None:
            raise Broken("A does not start")

    def start_full(self):
        """True if A serves, false if it ended with one clear line."""
        before = self.log_size()
        self.node.start()
        if self.node.ready(A) is not None:
            return True
        said = self.log(before).strip().splitlines()
        if not said or not any(words in said[-1] for words in ("No space", "full")) or self.node.process.returncode != 1:
            raise Broken(f"A ends with {self.node.process.returncode} on a full disk and says: {' / '.join(said)}")
        self.notes.append(f"ended with: {said[-1]}")
        return False

    def fill(self):
        self.filler = Filler(self.disk, self.left, self.greedy)
        self.filler.start()
        self.filler.full.wait()

    def fill_under_load(self):
        if self.moment == "before a start":
            self.load(ALL, BEFORE)
            self.node.kill(self.restart)
            self.fill()
            self.restart = None
            if not self.start_full():
                self.make_room(False)
                self.fill()
            return
        if self.moment == PUSHES:
            self.load(LOADS[PUSHES], (FILLING, FILLING), until_full=True)
            return
        if self.moment in ("between layer and manifest", "during a fold"):
            self.load(ALL, BEFORE)
            self.by_hand()
            self.load(ALL, WHILE_FULL)
            return
        self.load(LOADS.get(self.moment, ALL), BEFORE, WHILE_FULL, collect=self.moment == "during collections")

    def by_hand(self):
        """One image, with the disk filling between its layer and its manifest, or within the fold that follows it."""
        registry, repository = Checked(A), "crash/worker0"
        seed, size = self.random.getrandbits(64), self.random.randrange(1, LARGE)
        worker = self.worker(0, ALL)
        worker.registry = registry
        worker.push_blob(lambda data: registry.push_blob(repository, data), seed, size)
        if self.moment == "during a fold":
            worker.push_image(worker.image(), tags=["t0"])
            # A fold begins within 50 ms.
            time.sleep(self.random.uniform(0, 0.06))
            self.fill()
        else:
            self.fill()
            try:
                worker.push_image(worker.image(), tags=["t0"])
            except Full:
                self.refused += 1
        self.ledger_in_order()
        registry.close()

    def while_full(self):
        """The disk is full and nothing is under way."""
        free = self.disk.free()
        self.alive()
        self.checked(lists=False)
        registry = Checked(A)
        for path in ("/v2/_catalog", "/v2/crash/worker0/tags/list"):
            try:
                answer = registry.request("GET", path)
                if answer.status not in (200, 404):
                    raise Broken(f"GET {path}: {answer.status}")
            except Full:
                self.notes.append("lists refused")
        data = self.random.randbytes(2000)
        try:
            registry.push_blob("crash/refused", data)
            if self.filler and self.left < 64 << 20:
                raise Broken(f"a layer was taken with {self.disk.free() >> 10} KiB free")
        except Full:
            pass
        if Registry(A, timeout=DEADLINE).request("GET", "/readyz").status not in (200, 503):
            raise Broken("/readyz gives no answer that is due")
        self.delete_while_full(free)
        registry.close()

    def delete_while_full(self, free):
        """The ballast is there for this."""
        tags = [key for key, tag in self.ledger.tags.items() if tag.acknowledged]
        if not tags:
            return
        repository, name = self.random.choice(tags)
        tag, registry = self.ledger.tags[repository, name], Checked(A)
        tag.maybe.add(None)
        try:
            registry.request("DELETE", f"/v2/{repository}/manifests/{name}", due=202)
            tag.settle(None)
        except Full as refusal:
            self.refused += 1
            if not (self.filler and self.greedy):
                raise Broken(f"{refusal}, with {free >> 10} KiB free and the ballast") from refusal
        if registry.manifest(repository, name).status not in (200, 404):
            raise Broken(f"tag {repository}:{name} can no longer be read")

    def make_room(self, started):
        if self.filler:
            self.filler.stop()
            self.filler = None
        elif started:
            self.collect_half()
        if not started:
            self.start()

    def collect_half(self):
        """Without another file, deletes and a collection must make room on the full disk."""
        registry = Checked(A)
        for number in range(THREADS // 2):
            repository = f"crash/worker{number}"
            for name in [name for (r, name), item in self.ledger.manifests.items() if r == repository and item.state == KEPT]:
                registry.request("DELETE", f"/v2/{repository}/manifests/{name}", due=202)
                self.ledger.set((repository, name), self.ledger.manifests[repository, name], "gone")
                if name in self.ledger.images.get(repository, []):
                    self.ledger.images[repository].remove(name)
            for (r, _), tag in self.ledger.tags.items():
                if r == repository:
                    tag.settle(None)
        answer = self.node.command("gc", "--grace", "0s", "--json")
        if answer.returncode != 0:
            raise Broken(f"sampan gc on a full disk ends with {answer.returncode}: {answer.stderr.strip()}")
        self.notes.append(f"gc made room: {json.loads(answer.stdout)['bytes'] >> 20} MiB")

    def recover(self):
        """Pushes and lists work again without a start."""
        began, registry = time.monotonic(), Checked(A)
        data = self.random.randbytes(50_000)
        while True:
            try:
                blob = registry.push_blob("crash/again", data)
                body = manifest(blob, [blob])
                registry.push_manifest("crash/again", "latest", body)
                registry.request("GET", "/v2/_catalog", due=200)
                break
            except Full as refusal:
                if time.monotonic() - began > RECOVER:
                    raise Broken(f"{RECOVER} s after there was room: {refusal}, {self.disk.free() >> 20} MiB free") from refusal
                time.sleep(0.05)
        self.recovered = time.monotonic() - began
        self.kept = digest(body)
        registry.close()

    def afterwards(self):
        refused = self.refused
        self.checked()
        self.load(ALL, (AFTER, AFTER))
        # The load may reach the reserve again; uploads that are given up then leave up to this much more.
        if self.refused != refused and self.disk.free() > RESERVE + THREADS * LARGE:
            raise Broken(f"{self.refused - refused} requests were refused with {self.disk.free() >> 20} MiB free: "
                         f"{self.refusal}")
        self.checked()
        self.verify()
        self.node.kill()
        self.start()
        self.checked()
        image = Checked(A).manifest("crash/again", "latest")
        if digest(image.body) != self.kept or any(
                digest(Checked(A).blob("crash/again", name).body) != name for name in blobs_of(image.body)):
            raise Broken("the image that was pushed when there was room is lost")
        self.verify()
        if "panicked" in self.log(self.log_from):
            raise Broken("A's log tells of a panic")

    # ---- steps

    def worker(self, number, weights):
        self.loads += 1
        return Pusher(self.ledger, A, number, self.random.getrandbits(32), threading.Event(), threading.Event(), weights)

    def load(self, weights, before, full=None, until_full=False, collect=False):
        """Runs the workers for some time, and on while the disk fills and for some time after it has."""
        workers = [self.worker(number, weights) for number in range(THREADS)]
        for worker in workers:
            worker.start()
        gc = threading.Thread(target=self.collect, args=(workers[0].ended,), daemon=True)
        if collect:
            gc.start()
        deadline = time.monotonic() + self.random.uniform(*before)
        while time.monotonic() < deadline and not self.ledger.wrong:
            if until_full and all(worker.refused for worker in workers):
                break
            time.sleep(0.005)
        if full and not self.ledger.wrong:
            self.fill()
            time.sleep(self.random.uniform(*full))
        for worker in workers:
            worker.ended.set()
        for worker in workers:
            worker.join()
            self.refused += worker.refused
            self.refusal = worker.refusal or self.refusal
        if collect:
            gc.join()
        if until_full and not self.refused:
            raise Broken(f"layers did not fill the disk in {FILLING} s")
        self.alive()
        self.ledger_in_order()

    def collect(self, ended):
        while not ended.is_set():
            answer = self.node.command("gc", "--grace", "0s", "--json")
            said = answer.stderr.strip()
            if answer.returncode != 0 and not any(words in said for words in ("the disk is full", "built anew")):
                self.ledger.wrong.append(f"sampan gc ends with {answer.returncode}: {said}")
                return

    def ledger_in_order(self):
        if self.ledger.wrong:
            raise Broken("\n  ".join(self.ledger.wrong[:10]))

    def checked(self, lists=True):
        wrong = check(self.ledger, A, lists=lists)
        if wrong:
            raise Broken("\n  ".join(wrong[:10]))

    def alive(self):
        if not self.node.alive():
            raise Broken(f"A has died with {self.node.process.returncode}")

    def verify(self):
        answer = self.node.command("verify", "--json")
        if answer.returncode != 0:
            raise Broken(f"sampan verify ends with {answer.returncode}: {(answer.stdout + answer.stderr).strip()[-1000:]}")

    def log_size(self):
        return os.path.getsize(self.node.log) if os.path.exists(self.node.log) else 0

    def log(self, start):
        with open(self.node.log, "rb") as log:
            log.seek(start)
            return log.read().decode(errors="replace")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sampan", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--only", type=int)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    failed, slowest, refused = 0, 0.0, 0
    numbers = [options.only] if options.only else range(1, options.points + 1)
    for number in numbers:
        point, began = Point(options, number), time.monotonic()
        try:
            point.run()
        except (Broken, Refused, OSError, http.client.HTTPException, subprocess.SubprocessError) as broken:
            failed += 1
            print(f"point {number}: FAILED, --seed {options.seed} --only {number}: {point.describe()}:\n  "
                  f"{broken or repr(broken)}", flush=True)
            continue
        blobs, manifests, tags = point.ledger.counts()
        notes = "".join(f"; {note}" for note in sorted(set(point.notes)))
        slowest, refused = max(slowest, point.recovered), refused + point.refused
        print(f"point {number}: {point.describe()}: {point.refused} requests refused, {blobs} blobs, {manifests} manifests "
              f"and {tags} tags kept, pushes again after {point.recovered * 1000:.0f} ms{notes} "
              f"({time.monotonic() - began:.1f} s)", flush=True)
    if failed:
        sys.exit(f"disk-full: FAILED at {failed} of {len(numbers)} points, seed {options.seed}")
    print(f"disk-full: {len(numbers)} points, seed {options.seed}: nothing acknowledged lost, {refused} requests refused in "
          f"order, pushes again {slowest * 1000:.0f} ms after there was room at the latest")


if __name__ == "__main__":
    main()
