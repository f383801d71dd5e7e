"""Pushes to boards of one LAN and pulls from them, while they die and the LAN is split. Started by boards.sh.

Each push first looks at what its board serves under the tag: that push it knows of. So it is known which pushes of a tag
came before which, whatever the clocks say, and a tag may only stand for one that no acknowledged push came after.
"""

import argparse
import ctypes
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "long"))

from node import Broken, Node  # noqa: E402
from oci import Refused, Registry, digest, manifest  # noqa: E402

REPOSITORY = "fleet/boat"
ADDRESS = "127.0.0.1:5000"
CALM = 20        # pushes, at the beginning and at the end, whose way to all boards is timed
MEET = 60        # seconds until boards that were just started know each other
DEADLINE = 30    # seconds that any request may take
JOINED = 5       # seconds from a join until every board serves the last push of each tag
WRITERS, READERS = 3, 3
MOST_OFF = 3     # boards that are off at the same time
SPLIT = (3, 20)   # seconds that a split lasts, from and to
LAYER = 20_000   # bytes: more than travels with a directory

LIBC = ctypes.CDLL(None, use_errno=True)


def enter(namespace):
    """Moves this thread into a network namespace."""
    with open(f"/run/netns/{namespace}", "rb") as file:
        if LIBC.setns(file.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")


class Board:
    """A board, as threads in its namespace speak to it."""

    def __init__(self, number, namespace, options):
        self.number, self.namespace = number, namespace
        flags = ["--config", options.config]
        self.node = Node(options.binary, f"{options.work}/b{number}", f"{options.work}/b{number}.log", *flags,
                         namespace=f"/run/netns/{namespace}")
        self.lock, self.is_on = threading.Lock(), False
        self.life = 0   # how often it was started: a request that spans two of them may fail

    def ask(self, what):
        """Runs what(registry) in a thread of this board's namespace; what it raises is raised here."""
        result = {}

        def work():
            try:
                enter(self.namespace)
                registry = Registry(ADDRESS, timeout=DEADLINE)
                try:
                    result["value"] = what(registry)
                finally:
                    registry.close()
            except (OSError, http.client.HTTPException, Refused, Broken) as error:
                result["error"] = error

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(4 * DEADLINE)
        if thread.is_alive():
            raise Broken(f"board {self.number} gives no answer")
        if "error" in result:
            raise result["error"]
        return result["value"]

    def start(self):
        self.node.start()
        self.ask(lambda _: self.node.ready(ADDRESS))
        self.is_on = True

    def stop(self, how):
        self.is_on = False
        self.life += 1
        self.node.kill(how)

    def tag(self, tag):
        """The digest that it serves under a tag, or None."""
        answer = self.ask(lambda registry: registry.manifest(REPOSITORY, tag, method="HEAD"))
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise Refused(f"board {self.number}: HEAD of {tag}: {answer.status}")
        return answer.headers["Docker-Content-Digest"]


class Fleet:
    def __init__(self, options):
        self.boards = [Board(number, space, options) for number, space in enumerate(options.namespaces, 1)]
        self.switch = options.switch
        self.tags = [f"t{number}" for number in range(options.tags)]
        self.locks = {tag: threading.Lock() for tag in self.tags}
        self.guard = threading.Lock()
        self.sent = {tag: {} for tag in self.tags}    # digest -> the digest that its push knew of
        self.acknowledged = {}                        # digest -> tag
        self.layers = {}                              # digest -> digest of its layer
        self.troubles, self.left, self.paused, self.ended = [], options.pushes, threading.Event(), threading.Event()
        self.pushed = self.pulled = self.absent = self.cut = 0

    # ---- one push, one pull

    def push(self, board, tag):
        """Pushes an image; returns its digest, or None where the board died meanwhile."""
        life = board.life
        try:
            with self.locks[tag]:
                known = board.tag(tag)
                layer, config = os.urandom(LAYER), b"{}"
                body = manifest((digest(config), len(config)), [(digest(layer), len(layer))], push=os.urandom(8).hex())
                name = digest(body)
                with self.guard:
                    self.sent[tag][name] = known
                    self.layers[name] = digest(layer)

                def send(registry):
                    registry.push_blob(REPOSITORY, config)
                    registry.push_blob(REPOSITORY, layer)
                    registry.push_manifest(REPOSITORY, tag, body)

                board.ask(send)
                with self.guard:
                    self.acknowledged[name] = tag
                    self.pushed += 1
                return name
        except (OSError, http.client.HTTPException):
            if board.life == life and board.is_on:
                raise
            return None

    def pull(self, board, tag):
        life, began = board.life, time.monotonic()

        def read(registry):
            answer = registry.manifest(REPOSITORY, tag)
            if answer.status == 404:
                return None
            if answer.status != 200:
                raise Refused(f"board {board.number}: GET of {tag}: {answer.status}: {answer.body[:200]!r}")
            layer = json.loads(answer.body)["layers"][0]["digest"]
            blob = registry.blob(REPOSITORY, layer)
            if blob.status not in (200, 404) or (blob.status == 200 and digest(blob.body) != layer):
                raise Refused(f"board {board.number}: a layer of {tag}: {blob.status}")
            return digest(answer.body), blob.status

        try:
            answer = board.ask(read)
        except (OSError, http.client.HTTPException):
            # A layer whose owner is gone is cut off; nothing else is.
            if time.monotonic() - began > DEADLINE + 5:
                raise
            with self.guard:
                self.cut += 1
            if board.life == life and board.is_on and all(other.is_on for other in self.boards):
                raise
            return
        with self.guard:
            if answer is None:
                self.absent += 1
            else:
                self.pulled += 1
                if answer[0] not in self.sent[tag]:
                    raise Broken(f"board {board.number} serves {answer[0]} under {tag}, which nobody pushed")

    # ---- which push is the last

    def last(self, tag):
        """The pushes of a tag that no acknowledged push knew of, and that are no older than the acknowledged ones."""
        sent = self.sent[tag]
        before = set()
        for name in sent:
            if name in self.acknowledged:
                known = sent[name]
                while known is not None and known not in before:
                    before.add(known)
                    known = sent.get(known)
        return {name for name in sent if name not in before}

    def agree(self):
        """What is wrong with what boards serve: nothing where all serve the same last push of each tag."""
        for tag in self.tags:
            if not any(name in self.acknowledged for name in self.sent[tag]):
                continue
            served = {board.number: board.tag(tag) for board in self.boards}
            if len(set(served.values())) > 1:
                return f"{tag} differs: {served}"
            name = served[self.boards[0].number]
            if name not in self.last(tag):
                return f"{tag} is {name}, which a later push knew of"
        return None

    def settle(self, seconds, what):
        """Seconds until all boards agree."""
        began = time.monotonic()
        while True:
            wrong = self.agree()
            took = time.monotonic() - began
            if wrong is None:
                return took
            if took > seconds:
                raise Broken(f"{what}, after {took:.1f} s: {wrong}")

    # ---- threads

    def work(self, do):
        def run():
            while not self.ended.is_set():
                if self.paused.is_set():
                    time.sleep(0.01)
                    continue
                board = random.choice(self.boards)
                if not board.is_on:
                    continue
                try:
                    if not do(board, random.choice(self.tags)):
                        return
                except (OSError, http.client.HTTPException, Refused, Broken) as error:
                    self.troubles.append(f"board {board.number}: {error!r}")
                    return
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def write(self, board, tag):
        with self.guard:
            if self.left <= 0:
                return False
            self.left -= 1
        self.push(board, tag)
        time.sleep(random.uniform(0, 0.1))
        return True

    def read(self, board, tag):
        self.pull(board, tag)
        time.sleep(random.uniform(0, 0.05))
        return True

    # ---- what happens to boards

    def ip(self, *words):
        subprocess.run(["ip", "-n", self.switch, *words], check=True)

    def split(self, apart):
        half = random.sample(self.boards, len(self.boards) // 2) if apart else self.boards
        for board in half:
            self.ip("link", "set", f"port{board.number}", "master", "split" if apart else "bridge")

    def disturb(self):
        """Kills a board, or starts one that is off."""
        off = [board for board in self.boards if not board.is_on]
        if off and (len(off) >= MOST_OFF or random.random() < 0.5):
            random.choice(off).start()
        else:
            random.choice([board for board in self.boards if board.is_on]).stop(
                random.choice([signal.SIGKILL, signal.SIGTERM]))

    def all_on(self):
        for board in self.boards:
            if not board.is_on:
                board.start()

    def calm(self):
        """Seconds from a 201 until every board serves it, of some pushes one after the other."""
        times = []
        for _ in range(CALM):
            board, tag = random.choice(self.boards), random.choice(self.tags)
            name = self.push(board, tag)
            began = time.monotonic()
            waiting = set(self.boards) - {board}
            while waiting:
                waiting -= {other for other in waiting if other.tag(tag) == name}
                if time.monotonic() - began > DEADLINE:
                    raise Broken(f"{tag} is not everywhere: not on {[other.number for other in waiting]}")
            times.append(time.monotonic() - began)
        return times


def run(options):
    random.seed(options.seed)
    fleet = Fleet(options)
    for board in fleet.boards:
        board.start()
    began = time.monotonic()
    others = len(fleet.boards) - 1
    while any(len([it for it in (board.node.status() or {}).get("follows", []) if it.get("root")]) < others
              for board in fleet.boards):
        if time.monotonic() - began > MEET:
            raise Broken("boards do not follow each other")
        time.sleep(0.1)
    print(f"{len(fleet.boards)} boards follow each other after {time.monotonic() - began:.1f} s", flush=True)
    times = fleet.calm()

    threads = [fleet.work(fleet.write) for _ in range(WRITERS)]
    readers = [fleet.work(fleet.read) for _ in range(READERS)]
    share, joins = options.pushes // (options.splits + 1), []
    for number in range(options.splits):
        while fleet.left > options.pushes - share * (number + 1) and not fleet.troubles:
            fleet.disturb()
            time.sleep(random.uniform(0.2, 1))
        fleet.split(True)
        until = time.monotonic() + random.uniform(*SPLIT)
        while time.monotonic() < until and not fleet.troubles:
            fleet.disturb()
            time.sleep(random.uniform(0.2, 1))
        fleet.paused.set()
        fleet.all_on()
        for lock in fleet.locks.values():
            with lock:
                pass
        fleet.split(False)
        joins.append(fleet.settle(JOINED, "joined again"))
        fleet.paused.clear()
    while any(thread.is_alive() for thread in threads) and not fleet.troubles:
        fleet.disturb()
        time.sleep(random.uniform(0.2, 1))
    fleet.ended.set()
    for thread in threads + readers:
        thread.join(4 * DEADLINE)
    if fleet.troubles:
        raise Broken(fleet.troubles[0])
    fleet.all_on()
    fleet.settle(MEET, "at the end")
    times += fleet.calm()

    # Nothing that was acknowledged is lost: each board has each manifest and each layer of them.
    lost = []
    for board in fleet.boards:
        def look(registry):
            for name in fleet.acknowledged:
                for answer in (registry.manifest(REPOSITORY, name), registry.blob(REPOSITORY, fleet.layers[name])):
                    if answer.status != 200:
                        lost.append(f"board {board.number}: {name}: {answer.status}")
        board.ask(look)
    if lost:
        raise Broken(f"{len(lost)} things that were acknowledged are lost, the first: {lost[0]}")
    for board in fleet.boards:
        checked = board.node.command("verify")
        if checked.returncode != 0:
            raise Broken(f"board {board.number}: verify: {checked.stdout} {checked.stderr}")

    times.sort()
    print(f"{fleet.pushed} pushes acknowledged, {fleet.pulled} pulls, {fleet.absent} were 404, {fleet.cut} were cut; "
          f"all boards agree on {len(fleet.tags)} tags and have all that was acknowledged")
    print(f"seconds from a join until all serve the last push: {', '.join(f'{it:.1f}' for it in joins)}")
    print(f"milliseconds from a 201 until all serve it: p50 {times[len(times) // 2] * 1000:.0f}, "
          f"p99 {times[-1 - len(times) // 100] * 1000:.0f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--switch", required=True)
    parser.add_argument("--config", required=True)
    parser.add_argument("--pushes", type=int, default=60)
    parser.add_argument("--tags", type=int, default=8)
    parser.add_argument("--splits", type=int, default=1)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "big"))
    parser.add_argument("namespaces", nargs="+")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    try:
        run(options)
    except (Broken, Refused, OSError, http.client.HTTPException) as error:
        print(f"FAILED: {error!r}")
        sys.exit(1)


if __name__ == "__main__":
    main()
