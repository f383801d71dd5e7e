#!/usr/bin/env python3
"""Collects garbage while others push, mount and delete, and looks for what it must not have taken, and for what it left.

Started by gc.sh, inside A's network namespace. B follows A.
 1. Two blobs share their first leaf. One is deleted and collected; the other still comes whole, over HTTP from A, and
    through B, which has it from A leaf by leaf. In either order of pushing.
 2. Under load, with a grace period of seconds and one collection after the other, nothing goes that was asked for within
    it or that a manifest names; afterwards every manifest comes whole from A, and a sample through B.
 3. When all is deleted and the grace period is over, no blob is left on disk.
"""

import argparse
import http.client
import os
import random
import sys
import time

from node import Broken, Collector, Node
from load import KEPT, LEAF, Ledger, Load, check
from oci import Refused, Registry, blobs_of, digest, manifest

GRACE = 3          # seconds, as the configuration says it
SPARE = 1          # seconds more, until a collection must take what the grace period kept
FIND = 60          # seconds until B shows what A has
THROUGH_B = 40     # images that are pulled through B after the load
LEFT = 64 << 10    # bytes that may be left in blobs/ at the end
A, B = "127.0.0.1:5000", "10.77.0.2:5000"


class Run:
    def __init__(self, options):
        self.options, work = options, options.work
        with open(f"{work}/a.yml", "w", encoding="utf-8") as config:
            config.write(f"version: 0.1\ngc:\n  grace: {GRACE}s\n")
        self.writer = Node(options.sampan, f"{work}/a", f"{work}/a.log", "--config", f"{work}/a.yml")
        self.writer.start()
        if self.writer.ready(A) is None:
            raise Broken("A does not start")
        name = self.writer.status()["name"]
        self.follower = Node(options.sampan, f"{work}/b", f"{work}/b.log", "--addr", "0.0.0.0:5000", "--follow", name,
                             namespace=options.follower_namespace)
        self.follower.start()
        self.follower.ready(B)
        self.registry = Registry(A, timeout=60)

    # ---- leaves

    def shared_leaf(self, repository, deleted_first):
        """Pushes two blobs with one leaf in common, and has one of them collected."""
        common = os.urandom(LEAF)
        goes, stays = common + os.urandom(LEAF // 2), common + os.urandom(LEAF * 3 // 4)
        images = {}
        for data in (goes, stays) if deleted_first else (stays, goes):
            blob = self.registry.push_blob(repository, data)
            body = manifest(blob, [blob])
            images[digest(data)] = self.registry.push_manifest(repository, f"v{len(images)}", body)
        self.registry.request("DELETE", f"/v2/{repository}/manifests/{images[digest(goes)]}", due=202)
        self.collected(lambda: not os.path.exists(self.writer.blob_file(digest(goes))), "the deleted blob is still on disk")
        if self.registry.blob(repository, digest(goes)).status != 404:
            raise Broken("a collected blob is still shown")
        whole = self.registry.blob(repository, digest(stays))
        if whole.status != 200 or whole.body != stays:
            raise Broken(f"the blob that stays is answered with {whole.status} and {len(whole.body)} bytes")
        self.through_b([(repository, images[digest(stays)])])
        return repository, images[digest(stays)]

    def collected(self, done, complaint):
        """Waits until the grace period is over and collects."""
        time.sleep(GRACE + SPARE)
        answer = self.writer.command("gc")
        if answer.returncode != 0:
            raise Broken(f"sampan gc ends with {answer.returncode}: {answer.stderr.strip()}")
        if not done():
            raise Broken(f"{complaint}; gc said: {answer.stdout.strip()[-500:]}")

    # ---- load

    def under_load(self):
        ledger = Ledger(collects=True, grace=GRACE)
        collector = Collector(self.writer)
        # A blob is never deleted below a manifest here, so that each manifest must come whole at the end.
        load = Load(ledger, A, self.options.seed, delete_blob=0, shared=2, mount=3, delete_tag=2)
        collector.start()
        deadline = time.monotonic() + self.options.seconds
        while time.monotonic() < deadline and load.running() and collector.is_alive() and not ledger.wrong:
            time.sleep(0.1)
        if not self.writer.alive():
            raise Broken("A has died")
        load.stop()
        collector.stop()
        wrong = collector.broken + check(ledger, A)
        if wrong:
            raise Broken("\n  ".join(wrong[:20]))
        if not collector.blobs:
            raise Broken(f"{collector.times} collections took no blob")
        blobs, manifests, tags = ledger.counts()
        print(f"gc: {collector.times} collections under load took {collector.blobs} blobs of {collector.bytes >> 20} MiB; "
              f"{blobs} blobs, {manifests} manifests and {tags} tags are there, each as it must be", flush=True)
        images = [key for key, item in ledger.manifests.items() if item.state == KEPT]
        self.registry = Registry(A, timeout=60)
        self.whole(self.registry, images)
        self.through_b(random.sample(images, min(THROUGH_B, len(images))))
        return images

    def whole(self, registry, images):
        """Pulls images as clients do."""
        for repository, name in images:
            answer = registry.manifest(repository, name)
            if answer.status != 200 or digest(answer.body) != name:
                raise Broken(f"manifest {repository}@{name}: status {answer.status}")
            for blob in blobs_of(answer.body):
                part = registry.blob(repository, blob)
                if part.status != 200 or digest(part.body) != blob:
                    raise Broken(f"blob {repository}@{blob}: status {part.status}, {len(part.body)} bytes")

    def through_b(self, images):
        registry, deadline = Registry(B, timeout=60), time.monotonic() + FIND
        while [follow["root"] for follow in self.follower.status()["follows"]] != [self.writer.status()["root"]]:
            if time.monotonic() > deadline:
                raise Broken(f"B does not show A's root after {FIND} s")
            time.sleep(0.1)
        self.whole(registry, images)
        registry.close()

    # ---- the end

    def nothing_left(self, images):
        for repository, name in images:
            self.registry.request("DELETE", f"/v2/{repository}/manifests/{name}", due=202)
        listed = self.registry.request("GET", "/v2/_catalog", due=200).body
        if b"worker" in listed:
            raise Broken(f"repositories without a manifest are listed: {listed[:300]!r}")
        self.collected(lambda: self.left() <= LEFT, "blobs are left on disk")
        print(f"gc: all deleted and collected, {self.left()} bytes left in blobs/", flush=True)

    def left(self):
        return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(f"{self.writer.data}/blobs")
                   for name in names)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sampan", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--follower-namespace", required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    options = parser.parse_args()
    try:
        run = Run(options)
        leaves = []
        for repository, deleted_first in (("leaf/first", True), ("leaf/second", False)):
            leaves.append(run.shared_leaf(repository, deleted_first))
        print("gc: a blob that shared a leaf with a collected one comes whole from A, and through B", flush=True)
        run.nothing_left(leaves + run.under_load())
    except (Broken, Refused, OSError, http.client.HTTPException) as broken:
        sys.exit(f"gc: FAILED, --seed {options.seed}:\n  {broken or repr(broken)}")


if __name__ == "__main__":
    main()
