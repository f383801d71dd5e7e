#!/usr/bin/env python3
"""A publisher with very many repositories and tags, those who follow it, and what one more tag costs them.

Started by mirror.sh. All run on loopback, at the same time, on the same cores.
 1. A follower takes the tree from nothing. Who pushes to the follower meanwhile does not wait for that.
 2. One tag at a time is moved: the follower shows it within a second, and asks for no more blocks than lie on its path.
    So it does after it was away.
 3. A mirror takes all of it while the publisher folds ten times a second. It comes to an end with a root while that goes on,
    and when it stops, all that the last root names is there whole, without the publisher.
 4. One repository gets more tags than any: they are followed too, or status says why not, and what was there stays.
The memory of the followers stays below the bar all the while.
"""

import argparse
import http.client
import json
import os
import statistics
import sys
import threading
import time

from node import Broken, Node
from oci import Refused, Registry, blobs_of, digest, manifest

MEMORY = 64 << 20   # bytes that a follower should have resident at its peak: more is told
MOST = 96 << 20     # and with more than that the run fails
MOST_OF_MANY = 256 << 20  # the same where one repository has more tags than any, up to what is followed at all
SEEN = 1.0          # seconds in which a follower shows a tag that was moved, in the middle of many: nine of ten, because
                    # neither side has a new root while packs are rewritten
PATH = 96           # blocks: the 14 directories of a path, some of them HAMTs of three levels, for each link of a tag
UPDATES = 20        # tags that are moved, one after the other
ABSENCES = 3        # that are moved while the follower is away, each
FOLDS = 10          # a second
PUSH = 3.0          # seconds that a push to a follower may take while a tree comes in, where others have the cores as well
LAYER = 20 << 10    # bytes of a layer; what is smaller comes with its directory
WITH_LAYER = 10     # of so many repositories one has a layer of its own
AT_ONCE = 80        # tags in one request: the answer has a header for each, and the client takes 100
THREADS = 4
PORTS = 5100        # and on
MANY = "most/tags"


class Run:
    def __init__(self, options):
        self.options, self.nodes = options, {}
        self.publisher = self.start("a")
        self.address = self.nodes["a"][1]
        self.name = self.publisher.status()["name"]
        self.images = {}   # repository -> digest of its manifest

    def start(self, name, policy=None):
        """A node, which follows the publisher where a policy is said."""
        number = len(self.nodes) if name not in self.nodes else list(self.nodes).index(name)
        address, work = f"127.0.0.1:{PORTS + number}", self.options.work
        follow = [{"name": self.name, "policy": policy}] if policy else []
        peers = [f"/ip4/127.0.0.1/tcp/{PORTS + 100}/p2p/{self.publisher.status()['peer_id']}"] if policy else []
        with open(f"{work}/{name}.yml", "w", encoding="utf-8") as config:
            figures = {"debug": {"addr": f"127.0.0.1:{PORTS + 200 + number}", "prometheus": {"enabled": True}}}
            json.dump({"http": figures, "ipfs": {"peers": peers, "follow": follow}}, config)
        node = Node(self.options.sampan, f"{work}/{name}", f"{work}/{name}.log", "--config", f"{work}/{name}.yml", "--addr",
                    address, "--p2p", f"/ip4/127.0.0.1/tcp/{PORTS + 100 + number}")
        node.start()
        if node.ready(address) is None:
            raise Broken(f"{name} does not start")
        self.nodes[name] = (node, address)
        return node

    # ---- what is published

    def fill(self):
        tags = self.options.tags // self.options.repositories
        base = os.urandom(1024)
        began = time.monotonic()

        def make(registry, number):
            repository = f"fleet/{number % 100:02}/r{number:05}"
            config = registry.push_blob(repository, base)
            layers = [registry.push_blob(repository, os.urandom(LAYER))] if number % WITH_LAYER == 0 else [config]
            body = manifest(config, layers, number=str(number))
            for first in range(0, tags, AT_ONCE):
                names = [f"t{tag:05}" for tag in range(first, min(tags, first + AT_ONCE))]
                push(registry, repository, body, names)
            self.images[repository] = digest(body)

        self.spread(range(self.options.repositories), make)
        say(f"{len(self.images)} repositories and {tags * len(self.images)} tags were pushed in {time.monotonic() - began:.0f} s")

    def spread(self, items, work):
        items, wrong = iter(items), []
        lock = threading.Lock()

        def worker():
            registry = Registry(self.address, timeout=60)
            try:
                while not wrong:
                    with lock:
                        item = next(items, None)
                    if item is None:
                        return
                    work(registry, item)
            except (Refused, OSError, http.client.HTTPException) as error:
                wrong.append(error)
            finally:
                registry.close()

        threads = [threading.Thread(target=worker) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if wrong:
            raise wrong[0]

    # ---- followers

    def first(self):
        """A follower from nothing, to which somebody pushes meanwhile."""
        began = time.monotonic()
        self.start("b", "cache")
        with Pusher(self.nodes["b"][1]) as pusher:
            self.until("b", lambda follow: follow["root"] == self.publisher.status()["root"], self.options.patience)
            took = time.monotonic() - began
        say(f"a follower has the tree after {took:.1f} s and {self.received('b')} blocks; a push to it took "
            f"{pusher.median():.3f} s, {max(pusher.times):.3f} s at most")
        self.memory("b")
        self.fast(pusher)

    def updates(self):
        registry = Registry(self.address)
        follower = Registry(self.nodes["b"][1])
        times, blocks = [], []
        repositories = list(self.images)
        for number in range(UPDATES):
            repository = repositories[number * 7919 % len(repositories)]
            before = self.received("b")
            times.append(self.moved(registry, follower, repository, f"update {number}"))
            time.sleep(0.2)
            blocks.append(self.received("b") - before)
        times.sort()
        say(f"a tag that is moved is seen after {statistics.median(times):.3f} s, {times[-1]:.3f} s at most, and "
            f"{statistics.median(blocks)} blocks are asked for, {max(blocks)} at most")
        late = times[len(times) * 9 // 10]
        if late > SEEN:
            raise Broken(f"one tag of ten was seen after {late:.3f} s, and not within {SEEN} s")
        away = []
        for number in range(ABSENCES):
            self.nodes["b"][0].kill(15)
            repository = repositories[number * 104729 % len(repositories)]
            body = self.move(registry, repository, f"absence {number}")
            began = time.monotonic()
            self.start("b", "cache")
            follower = Registry(self.nodes["b"][1])
            self.shown(follower, repository, digest(body))
            away.append((time.monotonic() - began, self.received("b")))
        say("after it was away, with its start: " + ", ".join(f"{took:.2f} s and {count} blocks" for took, count in away))
        most = max([count for _, count in away] + blocks)
        if most > PATH:
            raise Broken(f"one tag took {most} blocks, and its path has at most {PATH}")
        self.memory("b")

    def move(self, registry, repository, word):
        body = registry.manifest(repository, "t00000").body
        image = json.loads(body)
        image["annotations"] = {"word": word}
        body = json.dumps(image, separators=(",", ":")).encode()
        self.images[repository] = registry.push_manifest(repository, "t00000", body)
        return body

    def moved(self, registry, follower, repository, word):
        body = self.move(registry, repository, word)
        began = time.monotonic()
        self.shown(follower, repository, digest(body))
        return time.monotonic() - began

    def shown(self, follower, repository, name):
        deadline = time.monotonic() + self.options.patience
        while follower.manifest(repository, "t00000", "HEAD").headers.get("Docker-Content-Digest") != name:
            if time.monotonic() > deadline:
                raise Broken(f"{repository}:t00000 is not shown")
            time.sleep(0.005)

    def mirror(self):
        """A mirror under a publisher that never rests."""
        with Churn(self) as churn:
            began, ends, seen = time.monotonic(), 0, None
            self.start("m", "mirror")
            while time.monotonic() < began + self.options.seconds or not ends:
                mirror = self.follow("m")["mirror"]
                if mirror and mirror["finished"] and mirror["root"] != seen:
                    ends, seen = ends + 1, mirror["root"]
                    first = time.monotonic() - began if ends == 1 else first
                if time.monotonic() > began + self.options.seconds + self.options.patience:
                    raise Broken(f"the mirror comes to no end under {FOLDS} folds a second: {mirror}")
                if churn.wrong:
                    raise Broken(f"pushes stopped: {churn.wrong[0]!r}")
                time.sleep(0.02)
            took = time.monotonic() - began
        pack = self.figure("m", "sampan_store_pack_bytes")
        say(f"under {churn.count / took:.1f} folds a second for {took:.0f} s a mirror had its first root whole after "
            f"{first:.1f} s, and {ends} roots were seen whole; its packs have {pack / (1 << 20):.1f} MiB")
        began = time.monotonic()
        root = lambda follow: (follow["mirror"] or {}).get("finished") and follow["mirror"]["root"]
        self.until("m", lambda follow: root(follow) == self.publisher.status()["root"], self.options.patience)
        say(f"the last one was whole {time.monotonic() - began:.1f} s after that")
        self.memory("m")
        self.memory("b")
        self.publisher.kill()
        registry, count = Registry(self.nodes["m"][1], timeout=60), 0
        for repository, name in self.images.items():
            answer = registry.manifest(repository, name)
            if answer.status != 200 or digest(answer.body) != name:
                raise Broken(f"{repository}@{name}: status {answer.status} from the mirror")
            for blob in blobs_of(answer.body):
                part = registry.blob(repository, blob)
                if part.status != 200 or digest(part.body) != blob:
                    raise Broken(f"blob {repository}@{blob}: status {part.status} from the mirror")
                count += 1
        say(f"without the publisher, {len(self.images)} manifests and {count} blobs came whole from the mirror")
        self.nodes["m"][0].kill(15)
        self.publisher = self.start("a")

    def many(self):
        """More tags in one repository than anybody has."""
        registry = Registry(self.address, timeout=60)
        blob = registry.push_blob(MANY, b"{}")
        body = manifest(blob, [blob])
        began = time.monotonic()
        self.spread(range(0, self.options.many, AT_ONCE), lambda client, first: push(
            client, MANY, body, [f"t{tag:08}" for tag in range(first, min(self.options.many, first + AT_ONCE))]))
        say(f"{self.options.many} tags were pushed into one repository in {time.monotonic() - began:.0f} s")
        began = time.monotonic()
        last = f"t{self.options.many - 1:08}"
        # From nothing, for whoever comes as late as that.
        self.start("l", "cache")
        with Pusher(self.nodes["l"][1]) as pusher:
            follower, error = Registry(self.nodes["l"][1], timeout=60), None
            while follower.manifest(MANY, last, "HEAD").status != 200 and not error:
                error = self.follow("l")["error"]
                if time.monotonic() > began + self.options.patience:
                    raise Broken("the tags are neither shown nor refused")
                time.sleep(0.05)
            took = time.monotonic() - began
            time.sleep(1)
        what = f"refuses them: {error}" if error else "shows the last of them"
        say(f"who follows from nothing {what}, after {took:.1f} s and {self.received('l')} blocks; a push to it took "
            f"{pusher.median():.3f} s, {max(pusher.times):.3f} s at most")
        self.memory("l", MOST_OF_MANY)
        self.fast(pusher)
        # Who has followed all the while.
        follower, deadline = Registry(self.nodes["b"][1], timeout=60), time.monotonic() + self.options.patience
        while follower.manifest(MANY, last, "HEAD").status != 200 and not self.follow("b")["error"]:
            if time.monotonic() > deadline:
                raise Broken("b neither shows the tags nor says why not")
            time.sleep(0.05)
        say(f"who has followed all the while says: {self.follow('b')['error'] or 'nothing'}")
        for repository, name in list(self.images.items())[:100]:
            if follower.manifest(repository, name).status != 200:
                raise Broken(f"b has lost {repository}@{name}")
        self.memory("b", MOST_OF_MANY)

    # ---- figures

    def follow(self, name):
        return self.nodes[name][0].status()["follows"][0]

    def until(self, name, is_so, patience):
        deadline = time.monotonic() + patience
        while True:
            follow = self.follow(name)
            if is_so(follow):
                return
            if time.monotonic() > deadline:
                raise Broken(f"{name} is not there in time: {follow}")
            time.sleep(0.05)

    def figure(self, name, figure):
        number = list(self.nodes).index(name)
        registry = Registry(f"127.0.0.1:{PORTS + 200 + number}", timeout=60)
        text = registry.request("GET", "/metrics", due=200).body.decode()
        registry.close()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{figure} ")))

    def received(self, name):
        return self.figure(name, "sampan_bitswap_received_blocks_total")

    def memory(self, name, most=MOST):
        with open(f"/proc/{self.nodes[name][0].process.pid}/status", encoding="ascii") as status:
            lines = dict(line.split(":", 1) for line in status)
        peak, now = (int(lines[key].split()[0]) << 10 for key in ("VmHWM", "VmRSS"))
        beyond = f", above the bar of {MEMORY >> 20} MiB" if peak > MEMORY else ""
        say(f"{name} has {now >> 20} MiB resident, {peak >> 20} MiB at its peak{beyond}")
        if peak > most:
            raise Broken(f"{name} had {peak >> 20} MiB resident, and may have {most >> 20} MiB")

    @staticmethod
    def fast(pusher):
        if pusher.wrong:
            raise Broken(f"a push to the follower failed: {pusher.wrong[0]!r}")
        if max(pusher.times) > PUSH:
            raise Broken(f"a push to the follower took {max(pusher.times):.1f} s, and not at most {PUSH} s")


class Worker(threading.Thread):
    """Does something again and again for as long as its block lasts."""

    def __init__(self):
        super().__init__(daemon=True)
        self.ended, self.wrong = threading.Event(), []

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()

    def run(self):
        try:
            self.work()
        except (Refused, OSError, http.client.HTTPException) as error:
            self.wrong.append(error)


class Pusher(Worker):
    """Pushes small images to a follower, and takes the time."""

    def __init__(self, address):
        super().__init__()
        self.address, self.times = address, [0.0]

    def work(self):
        registry = Registry(self.address, timeout=600)
        blob = registry.push_blob("own", b"{}")
        number = 0
        while not self.ended.wait(0.05):
            began = time.monotonic()
            registry.push_manifest("own", f"t{number % 10}", manifest(blob, [blob], number=str(number)))
            self.times.append(time.monotonic() - began)
            number += 1

    def median(self):
        return statistics.median(self.times)


class Churn(Worker):
    """A publisher with a new root ten times a second, each with a layer that is new, or one from before."""

    def __init__(self, run):
        super().__init__()
        self.images, self.address, self.count = run.images, run.address, 0

    def work(self):
        registry, pushed = Registry(self.address, timeout=60), []
        due = time.monotonic()
        while not self.ended.wait(max(0, due - time.monotonic())):
            due += 1 / FOLDS
            repository = f"churn/r{self.count % 7}"
            if self.count % 3 == 0:
                pushed.append((repository, registry.push_blob(repository, os.urandom(LAYER))))
            config = registry.push_blob(repository, b"{}")
            source, layer = pushed[self.count * 31 % len(pushed)]
            if not registry.mount(repository, layer[0], source):
                raise Refused(f"a layer of {source} is not mounted into {repository}")
            body = manifest(config, [layer], number=str(self.count))
            self.images[repository] = registry.push_manifest(repository, "latest", body)
            self.count += 1


def push(registry, repository, body, tags):
    query = "&".join(f"tag={tag}" for tag in tags)
    registry.request("PUT", f"/v2/{repository}/manifests/{digest(body)}?{query}", body, due=201,
                     Content_Type="application/vnd.oci.image.manifest.v1+json")


def say(text):
    print(f"mirror: {text}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sampan", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--repositories", type=int, default=300)
    parser.add_argument("--tags", type=int, default=3_000)
    parser.add_argument("--many", type=int, default=10_000, help="tags in one repository")
    parser.add_argument("--seconds", type=float, default=15, help="of a publisher that does not rest")
    parser.add_argument("--patience", type=float, default=60, help="seconds until a follower must have a tree")
    options = parser.parse_args()
    try:
        run = Run(options)
        run.fill()
        run.first()
        run.updates()
        run.mirror()
        run.many()
    except (Broken, Refused, OSError, http.client.HTTPException) as broken:
        sys.exit(f"mirror: FAILED:\n  {broken or repr(broken)}")


if __name__ == "__main__":
    main()
