#!/usr/bin/env python3
"""Fills the disk under a running registry, at many points and in several ways, and looks at every answer.

Started by disk-full.sh. The data lie on ext4 of a loop device. At each point something else takes what is free, all or
nearly all of it, the reserve included, while pushes, deletes and collections go on. Then:
 - every answer is one that says what it is: done, or 507 (or 503) with the reason; none is missing or late,
 - everything acknowledged is there with the right bytes while the disk is full,
 - when there is room again, the same process takes pushes, and `sampan verify` finds nothing,
 - after a kill and a start everything acknowledged is still there.
"""

import argparse
import http.client
import json
import os
import random
import subprocess
import sys
import threading
import time

from node import Broken, Node
from oci import Registry, digest, manifest

DISK = 320 << 20
ADDRESS = "127.0.0.1:5990"
CLEAN = {201, 202, 204, 507, 503, 404}  # 404: the session or the layer of a push that was refused before
LATE = 60        # seconds that any answer may take
RECOVERS = 30    # seconds from when there is room until a push is taken
LOAD = 1.5       # seconds of load on a full disk
WAYS = ["pushes", "layer", "manifests", "deletes", "gc", "chunks", "start"]
LEFT = [0, 0, 4 << 10, 64 << 10, 1 << 20, 20 << 20]  # bytes that the filler leaves free


class Disk:
    def __init__(self, work):
        self.image, self.place = f"{work}/full.img", f"{work}/full"
        os.makedirs(self.place, exist_ok=True)
        with open(self.image, "wb") as image:
            image.truncate(DISK)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.place], check=True)

    def free(self):
        stat = os.statvfs(self.place)
        return stat.f_bavail * stat.f_frsize

    def fill(self, left):
        """Takes all but `left` bytes."""
        with open(f"{self.place}/filler", "ab") as filler:
            size = os.path.getsize(filler.name)
            while (room := self.free() - left) >= 4096:
                try:
                    os.posix_fallocate(filler.fileno(), size, min(room, 1 << 20) if room < 8 << 20 else room - (4 << 20))
                except OSError:
                    break
                size = os.path.getsize(filler.name)

    def empty(self):
        if os.path.exists(f"{self.place}/filler"):
            os.unlink(f"{self.place}/filler")

    def remove(self):
        subprocess.run(["umount", "-l", self.place], check=False)


class Run:
    def __init__(self, options, disk):
        self.disk, self.random = disk, random.Random(options.seed)
        self.node = Node(options.sampan, f"{disk.place}/data", f"{options.work}/full.log", "--addr", ADDRESS,
                         "--p2p", "/ip4/127.0.0.1/tcp/0")
        self.lock = threading.Lock()
        self.blobs, self.manifests, self.tags = {}, {}, {}   # what was acknowledged: digest -> bytes; tag -> digest
        self.maybe = {}                                      # tag -> digests that were sent and not acknowledged
        self.wrong, self.answers, self.number = [], {}, 0

    # ---- requests

    def ask(self, registry, method, path, body=None, **headers):
        began = time.monotonic()
        try:
            answer = registry.request(method, path, body, **headers)
        except (OSError, http.client.HTTPException) as error:
            # Where a body is refused before it was read, the connection may end under the client's hands.
            if body and len(body) > 1 << 16 and isinstance(error, (BrokenPipeError, ConnectionResetError)):
                return None
            raise Broken(f"{method} {path}: {error!r} after {time.monotonic() - began:.1f} s") from error
        with self.lock:
            self.answers[answer.status] = self.answers.get(answer.status, 0) + 1
        if method in ("GET", "HEAD"):
            return answer
        if answer.status not in CLEAN:
            raise Broken(f"{method} {path}: {answer.status} {answer.body[:300]!r}")
        if answer.status in (503, 507):
            message = json.loads(answer.body)["errors"][0]["message"]
            if answer.status == 507 and "full" not in message:
                raise Broken(f"{method} {path}: 507 without the reason: {message}")
            if "Retry-After" not in answer.headers:
                raise Broken(f"{method} {path}: {answer.status} without Retry-After")
        return answer

    def push_blob(self, registry, data, chunk=None):
        began = self.ask(registry, "POST", "/v2/full/blobs/uploads/")
        if began is None or began.status != 202:
            return None
        location, name = began.headers["Location"], digest(data)
        if chunk:
            for start in range(0, len(data), chunk):
                part = data[start:start + chunk]
                answer = self.ask(registry, "PATCH", location, part, Content_Type="application/octet-stream",
                                  Content_Range=f"{start}-{start + len(part) - 1}")
                if answer is None or answer.status != 202:
                    return None
            data_now = None
        else:
            data_now = data
        answer = self.ask(registry, "PUT", f"{location}{'&' if '?' in location else '?'}digest={name}", data_now,
                          Content_Type="application/octet-stream")
        if answer is None or answer.status != 201:
            return None
        with self.lock:
            self.blobs[name] = data
        return name

    def push_image(self, registry, size, tag, chunk=None):
        with self.lock:
            self.number += 1
            seed = self.number
        layer = random.Random(seed).randbytes(size)
        config = json.dumps({"number": seed}).encode()
        if not self.push_blob(registry, config) or not self.push_blob(registry, layer, chunk):
            return False
        body = manifest((digest(config), len(config)), [(digest(layer), len(layer))])
        name = digest(body)
        with self.lock:
            self.maybe.setdefault(tag, set()).add(name)
        answer = self.ask(registry, "PUT", f"/v2/full/manifests/{tag}", body,
                          Content_Type="application/vnd.oci.image.manifest.v1+json")
        if answer is None or answer.status != 201:
            return False
        with self.lock:
            self.manifests[name], self.tags[tag] = body, name
            self.maybe[tag] = set()
        return True

    def delete_tag(self, registry, tag):
        with self.lock:
            before = self.tags.pop(tag, None)
            self.maybe.setdefault(tag, set()).update({before, None})
        answer = self.ask(registry, "DELETE", f"/v2/full/manifests/{tag}")
        if answer is not None and answer.status == 202:
            with self.lock:
                self.maybe[tag] = {None}

    # ---- looks

    def check(self, when):
        registry = Registry(ADDRESS, timeout=LATE)
        for tag, name in list(self.tags.items()):
            answer = self.ask(registry, "GET", f"/v2/full/manifests/{tag}")
            seen = digest(answer.body) if answer.status == 200 else None
            if seen != name and seen not in self.maybe.get(tag, set()):
                raise Broken(f"{when}: tag {tag} shows {seen} ({answer.status}), due is {name}")
            for blob in (item["digest"] for item in json.loads(self.manifests[name])["layers"]):
                part = self.ask(registry, "GET", f"/v2/full/blobs/{blob}")
                if part.status != 200 or digest(part.body) != blob:
                    raise Broken(f"{when}: {blob} of {tag}: {part.status}, {len(part.body)} bytes")
        listed = self.ask(registry, "GET", "/v2/full/tags/list?n=1000")
        if self.tags and (listed.status != 200 or not set(self.tags) <= set(json.loads(listed.body)["tags"])):
            raise Broken(f"{when}: the list of tags is {listed.status} {listed.body[:200]!r}")
        registry.close()

    # ---- one point

    def point(self, number):
        way, left = WAYS[number % len(WAYS)], self.random.choice(LEFT)
        registry = Registry(ADDRESS, timeout=LATE)
        for count in range(3):
            if not self.push_image(registry, 200_000, f"p{number}-{count}"):
                raise Broken("a push before the disk was full is refused")
        ended = threading.Event()
        workers = [threading.Thread(target=self.work, args=(way, number, worker, ended)) for worker in range(3)]
        if way == "start":
            self.node.kill()
            self.disk.fill(left)
            self.node.start()
            if self.node.ready(ADDRESS) is None:
                raise Broken("it does not start on a full disk")
            registry = Registry(ADDRESS, timeout=LATE)
        for worker in workers:
            worker.start()
        time.sleep(self.random.uniform(0.01, 0.4))
        if way != "pushes":
            self.disk.fill(left)
        time.sleep(LOAD)
        self.check(f"point {number}, {way}, full")
        ended.set()
        for worker in workers:
            worker.join(timeout=LATE * 2)
            if worker.is_alive():
                raise Broken(f"point {number}, {way}: a request is never answered")
        if self.wrong:
            raise Broken(f"point {number}, {way}: {self.wrong[0]}")
        if not self.node.alive():
            raise Broken(f"point {number}, {way}: the registry has died")
        self.check(f"point {number}, {way}, after the load")

        self.disk.empty()
        if way == "pushes":
            # What filled it were pushes: deleting and collecting makes the room.
            for tag in [tag for tag in self.tags if tag.startswith("big")]:
                self.delete_tag(registry, tag)
            self.untag_all(registry)
        deadline = time.monotonic() + RECOVERS
        while not self.push_image(registry, 300_000, f"p{number}-again"):
            if time.monotonic() > deadline:
                raise Broken(f"point {number}, {way}: no push is taken {RECOVERS} s after there is room")
            time.sleep(0.2)
        answer = self.node.command("verify")
        if answer.returncode != 0:
            raise Broken(f"point {number}, {way}: verify says {answer.stdout[-500:]} {answer.stderr[-300:]}")
        self.node.kill()
        self.node.start()
        if self.node.ready(ADDRESS) is None:
            raise Broken(f"point {number}, {way}: it does not start again")
        self.check(f"point {number}, {way}, after a kill")
        print(f"point {number}: {way}, {left >> 10} KiB left; {len(self.tags)} tags there", flush=True)
        self.tidy()

    def work(self, way, number, worker, ended):
        try:
            registry, count = Registry(ADDRESS, timeout=LATE), 0
            while not ended.is_set():
                count += 1
                tag = f"w{number}-{worker}-{count % 20}"
                if way == "pushes":
                    self.push_image(registry, 12 << 20, f"big{number}-{worker}-{count}")
                elif way == "layer":
                    self.push_image(registry, 8 << 20, tag)
                elif way == "chunks":
                    self.push_image(registry, 3 << 20, tag, chunk=700_000)
                elif way == "deletes" and count % 3 == 0:
                    self.delete_tag(registry, tag)
                elif way == "gc" and worker == 0:
                    answer = self.node.command("gc", "--json")
                    if answer.returncode != 0 and "full" not in answer.stderr:
                        raise Broken(f"gc: {answer.stderr}")
                else:
                    self.push_image(registry, 20_000, tag)
        except (Broken, KeyError, ValueError) as broken:
            self.wrong.append(repr(broken))

    def untag_all(self, registry):
        """Deletes big images with their manifests, and has the room given back."""
        for name, body in list(self.manifests.items()):
            size = json.loads(body)["layers"][0]["size"]
            if size > 4 << 20 and name not in self.tags.values():
                answer = self.ask(registry, "DELETE", f"/v2/full/manifests/{name}")
                if answer.status not in (202, 404):
                    raise Broken(f"a manifest cannot be deleted on a full disk: {answer.status} {answer.body!r}")
                del self.manifests[name]
        answer = self.node.command("gc", "--grace", "0s")
        if answer.returncode != 0:
            raise Broken(f"gc does not work on a full disk: {answer.stderr}")

    def tidy(self):
        """Makes room for the next point."""
        registry = Registry(ADDRESS, timeout=LATE)
        for tag in list(self.tags):
            self.delete_tag(registry, tag)
        for name in list(self.manifests):
            self.ask(registry, "DELETE", f"/v2/full/manifests/{name}")
        self.manifests.clear()
        self.blobs.clear()
        self.node.command("gc", "--grace", "0s")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sampan", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--points", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    disk = Disk(options.work)
    run = Run(options, disk)
    try:
        run.node.start()
        if run.node.ready(ADDRESS) is None:
            raise Broken("it does not start")
        for number in range(options.points):
            run.point(number)
        shown = ", ".join(f"{count} x {status}" for status, count in sorted(run.answers.items()))
        print(f"disk-full: {options.points} points, seed {options.seed}; answers: {shown}", flush=True)
    except (Broken, OSError, http.client.HTTPException) as broken:
        sys.exit(f"disk-full: FAILED, --seed {options.seed}:\n  {broken or repr(broken)}")
    finally:
        if run.node.process and run.node.alive():
            run.node.kill()
        disk.remove()


if __name__ == "__main__":
    main()
