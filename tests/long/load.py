"""The load of the crash runs: pushes, mounts and deletes of every kind from several threads, and a ledger of what was
acknowledged.

The ledger knows of each blob and manifest of a repository whether it must be there, must be gone, or may be either:
while a request for it is out, and after a crash that left it without an answer. Where garbage is collected meanwhile,
a blob that no manifest of its repository names may go as well, when the grace period since it was last asked for is over.
"""

import http.client
import json
import random
import threading
import time

from oci import Refused, Registry, blobs_of, digest, manifest

THREADS = 4
TAGS = 12                    # tags of a repository that are moved again and again
MANY = 25                    # tags of a repository that are moved by one request
SMALL, LARGE = 64 << 10, 3 << 20
LEAF = 1 << 20               # bytes that the shared blobs have in common at their beginning: a leaf of their trees
SHARED = 6                   # blobs that every repository pushes
BYTES_LIMIT = 2 << 30        # past this only small blobs are pushed, so that a long run fits on a disk
ENOUGH = 60                  # manifests of a repository; with more of them, more are deleted
REMEMBERED = 20              # blobs and deleted images of a repository that are used again
TRIES = 8                    # pushes of an image whose blobs a collection may take away between two requests
KEPT, GONE, EITHER = "kept", "gone", "kept or gone"
# What a worker does, and how often.
STEPS = {"whole": 4, "chunked": 2, "shared": 1, "mount": 2, "tag": 4, "untagged": 1, "many": 1, "delete_tag": 1,
         "delete_manifest": 1, "delete_blob": 1, "again": 1}


def content(seed, size):
    """The bytes of a blob. The shared ones have low seeds."""
    if seed < SHARED and size > LEAF:
        return random.Random(0).randbytes(LEAF) + random.Random(seed).randbytes(size - LEAF)
    return random.Random(seed).randbytes(size)


class Blob:
    def __init__(self, seed, size):
        self.seed, self.size, self.state = seed, size, EITHER
        self.asked = 0.0  # when the last request for it that was answered with yes was sent

    def bytes(self):
        return content(self.seed, self.size)


class Manifest:
    def __init__(self, body):
        self.body, self.names, self.state = body, blobs_of(body), EITHER

    def bytes(self):
        return self.body


class Tag:
    """What a tag may show: what was acknowledged last (a digest, or None for nothing), or what was sent later and never
    answered."""

    def __init__(self):
        self.acknowledged, self.maybe = None, set()

    def allowed(self):
        return {self.acknowledged} | self.maybe

    def settle(self, seen):
        self.acknowledged, self.maybe = seen, set()


class Ledger:
    def __init__(self, collects=False, grace=0.0):
        self.collects, self.grace = collects, grace
        self.blobs, self.manifests = {}, {}   # (repository, digest) -> Blob or Manifest
        self.tags = {}                        # (repository, tag) -> Tag
        self.touched = set()                  # keys of blobs and manifests that a request was for since the last check
        self.named = {}                       # (repository, digest of a blob) -> how many kept manifests name it
        self.layers, self.images, self.deleted = {}, {}, {}  # repository -> what its worker may use again
        self.bytes = 0
        self.wrong = []                       # a server that runs must not do this

    def blob(self, key, seed, size):
        self.touched.add(key)
        return self.blobs.setdefault(key, Blob(seed, size))

    def manifest(self, key, body):
        self.touched.add(key)
        return self.manifests.setdefault(key, Manifest(body))

    def set(self, key, item, state):
        """Notes what a manifest is known to be, and so which blobs are named."""
        if isinstance(item, Manifest) and (item.state == KEPT) != (state == KEPT):
            for name in item.names:
                self.named[key[0], name] = self.named.get((key[0], name), 0) + (1 if state == KEPT else -1)
        item.state = state

    def must_be(self, key, item):
        """KEPT, GONE or EITHER."""
        spare = (isinstance(item, Blob) and self.collects and not self.named.get(key)
                 and time.monotonic() - item.asked >= self.grace)
        return EITHER if item.state == KEPT and spare else item.state

    def counts(self):
        """How many blobs, manifests and tags are there."""
        kept = [sum(item.state == KEPT for item in items.values()) for items in (self.blobs, self.manifests)]
        return *kept, sum(tag.acknowledged is not None for tag in self.tags.values())


class Worker(threading.Thread):
    """Works in a repository of its own until `ended` is set or the server is gone."""

    def __init__(self, ledger, address, number, seed, ended, dark, weights):
        super().__init__(daemon=True)
        self.ledger, self.address, self.ended, self.dark = ledger, address, ended, dark
        self.repository = f"crash/worker{number}"
        self.others = [f"crash/worker{other}" for other in range(THREADS) if other != number]
        self.random = random.Random(seed)
        self.layers = ledger.layers.setdefault(self.repository, [])     # (digest, seed, size)
        self.images = ledger.images.setdefault(self.repository, [])     # digests of kept manifests
        self.deleted = ledger.deleted.setdefault(self.repository, [])   # bodies of deleted manifests
        self.weights = weights

    def run(self):
        self.registry = Registry(self.address)
        try:
            while not self.ended.is_set():
                steps = STEPS | {"delete_manifest": 8 if len(self.images) > ENOUGH else 1} | self.weights
                getattr(self, self.random.choices(list(steps), list(steps.values()))[0])()
        except (OSError, http.client.HTTPException):
            pass  # killed: what was in flight was not acknowledged
        except Refused as refusal:
            self.ledger.wrong.append(str(refusal))
        finally:
            self.registry.close()

    # ---- blobs

    def whole(self):
        self.new_blob(lambda data: self.registry.push_blob(self.repository, data))

    def chunked(self):
        self.new_blob(lambda data: self.registry.push_blob_chunked(self.repository, data, max(1, len(data) // 3)))

    def shared(self):
        seed = self.random.randrange(SHARED)
        self.push_blob(lambda data: self.registry.push_blob(self.repository, data), seed, LEAF + 1000 * (seed + 1))

    def new_blob(self, push):
        large = self.random.random() < 0.1 and self.ledger.bytes < BYTES_LIMIT
        self.push_blob(push, self.random.getrandbits(64), self.random.randrange(1, LARGE if large else SMALL))

    def push_blob(self, push, seed, size):
        data = content(seed, size)
        name = digest(data)
        self.linked(name, seed, size, lambda: push(data))
        self.ledger.bytes += size

    def mount(self):
        """A blob of another repository, which may be deleted there at this moment."""
        source = self.random.choice(self.others)
        theirs = list(self.ledger.layers.get(source, []))
        if theirs:
            name, seed, size = self.random.choice(theirs)
            self.linked(name, seed, size, lambda: self.registry.mount(self.repository, name, source))

    def linked(self, name, seed, size, request):
        """A request that links a blob. It may answer that it has not."""
        key = self.repository, name
        before = self.ledger.blobs[key].state if key in self.ledger.blobs else GONE
        blob = self.ledger.blob(key, seed, size)
        if blob.state == GONE:
            blob.state = EITHER
        asked = time.monotonic()
        if self.answered(request()) is False:
            # An upload was begun instead.
            blob.state = before
            return
        blob.state, blob.asked = KEPT, asked
        if (name, seed, size) not in self.layers:
            self.layers.append((name, seed, size))
        del self.layers[:-REMEMBERED]

    def delete_blob(self):
        if not self.layers:
            return
        name, seed, size = self.random.choice(self.layers)
        key = self.repository, name
        blob = self.ledger.blob(key, seed, size)
        must_be, blob.state = self.ledger.must_be(key, blob), EITHER
        self.delete(f"blobs/{name}", must_be)
        blob.state = GONE
        self.layers.remove((name, seed, size))

    # ---- manifests

    def tag(self):
        self.push_image(self.image(), tags=[f"t{self.random.randrange(TAGS)}"])

    def untagged(self):
        self.push_image(self.image())

    def many(self):
        self.push_image(self.image(), tags=[f"u{number}" for number in range(MANY)])

    def again(self):
        """What was deleted comes back, byte for byte."""
        if self.deleted:
            self.push_image(self.random.choice(self.deleted), tags=[f"t{self.random.randrange(TAGS)}"])

    def image(self):
        layers = self.random.sample(self.layers, min(len(self.layers), 3))
        layers = [(name, size) for name, _, size in layers]
        return manifest(layers[0], layers, nonce=str(self.random.getrandbits(64))) if layers else None

    def push_image(self, body, tags=()):
        """As clients do it: what is not there of it is pushed before it."""
        if body is None:
            return
        key = self.repository, digest(body)
        for attempt in range(TRIES):
            began = time.monotonic()
            for name in blobs_of(body):
                self.have(name)
            item = self.ledger.manifest(key, body)
            if item.state == GONE:
                item.state = EITHER
            for tag in tags:
                self.ledger.tags.setdefault((self.repository, tag), Tag()).maybe.add(key[1])
            try:
                self.answered(self.put(key[1], body, tags))
                break
            except Refused as refusal:
                # A collection may have come between.
                late = self.ledger.collects and time.monotonic() - began >= self.ledger.grace
                if not late or "MANIFEST_BLOB_UNKNOWN" not in str(refusal) or attempt + 1 == TRIES:
                    raise
        self.ledger.set(key, item, KEPT)
        for name in item.names:
            self.ledger.blobs[self.repository, name].state = KEPT
            self.ledger.touched.add((self.repository, name))
        for tag in tags:
            self.ledger.tags[self.repository, tag].settle(key[1])
        if key[1] not in self.images:
            self.images.append(key[1])
        if body in self.deleted:
            self.deleted.remove(body)

    def have(self, name):
        """A blob that is about to be named: asked for, and pushed where it is not there."""
        key = self.repository, name
        blob = self.ledger.blobs[key]
        asked = time.monotonic()
        if self.answered(self.registry.blob(*key, "HEAD")).status == 200:
            if blob.state == GONE:
                self.ledger.wrong.append(f"HEAD shows blob {self.repository}@{name}, which was deleted")
            blob.state, blob.asked = KEPT, asked
        else:
            if self.ledger.must_be(key, blob) == KEPT:
                self.ledger.wrong.append(f"HEAD does not show blob {self.repository}@{name}")
            self.push_blob(lambda data: self.registry.push_blob(self.repository, data), blob.seed, blob.size)

    def put(self, name, body, tags):
        if len(tags) == 1:
            return self.registry.push_manifest(self.repository, tags[0], body)
        query = "&".join(f"tag={tag}" for tag in tags)
        return self.registry.push_manifest(self.repository, f"{name}?{query}" if query else name, body)

    def delete_tag(self):
        tags = [(name, tag) for (repository, name), tag in list(self.ledger.tags.items())
                if repository == self.repository and tag.acknowledged]
        if tags:
            name, tag = self.random.choice(tags)
            tag.maybe.add(None)
            self.delete(f"manifests/{name}", KEPT)
            tag.settle(None)

    def delete_manifest(self):
        """With every tag that shows it."""
        if not self.images:
            return
        name = self.random.choice(self.images)
        key = self.repository, name
        item = self.ledger.manifests[key]
        self.ledger.touched.add(key)
        tags = [tag for (repository, _), tag in list(self.ledger.tags.items())
                if repository == self.repository and tag.acknowledged == name]
        self.ledger.set(key, item, EITHER)
        for tag in tags:
            tag.maybe.add(None)
        self.delete(f"manifests/{name}", KEPT)
        self.ledger.set(key, item, GONE)
        for tag in tags:
            tag.settle(None)
        self.images.remove(name)
        self.deleted.append(item.body)
        del self.deleted[:-REMEMBERED]

    def delete(self, path, must_be):
        answer = self.answered(self.registry.request("DELETE", f"/v2/{self.repository}/{path}"))
        if answer.status != 202 and (answer.status != 404 or must_be == KEPT):
            raise Refused(f"DELETE {self.repository} {path}: {answer.status}: {answer.body[:300]!r}")

    def answered(self, answer):
        """An answer counts if it came while there was power: a machine without any sends none."""
        if self.dark.is_set():
            raise ConnectionError("the power is gone")
        return answer


class Load:
    """Runs the workers, with other weights of their steps where some are given. `stop` must come after the server was
    killed, or lets what is in flight end."""

    def __init__(self, ledger, address, seed, **weights):
        self.ended, self.dark = threading.Event(), threading.Event()
        self.workers = [Worker(ledger, address, n, seed * THREADS + n, self.ended, self.dark, weights)
                        for n in range(THREADS)]
        for worker in self.workers:
            worker.start()

    def running(self):
        return any(worker.is_alive() for worker in self.workers)

    def stop(self):
        self.ended.set()
        for worker in self.workers:
            worker.join()


def check(ledger, address, sample=None, lists=True):
    """What is lost or wrong, as a list of sentences. All that a request was for since the last check is read, and a
    sample of the rest (all of it, if none is said), and lists, if wanted. What is seen then counts."""
    registry, wrong = Registry(address), ledger.wrong
    ledger.wrong = []
    # Manifests first: they decide which blobs must be there.
    for items, read in ((ledger.manifests, registry.manifest), (ledger.blobs, registry.blob)):
        rest = [key for key in items if key not in ledger.touched]
        chosen = rest if sample is None else random.sample(rest, min(sample, len(rest)))
        for key in [*chosen, *(key for key in items if key in ledger.touched)]:
            wrong += look(ledger, key, items[key], read(*key))
    ledger.touched.clear()
    for (repository, name), tag in ledger.tags.items():
        answer = registry.manifest(repository, name)
        seen = digest(answer.body) if answer.status == 200 else None
        if answer.status not in (200, 404) or seen not in tag.allowed():
            wrong.append(f"tag {repository}:{name}: status {answer.status}, {seen}, allowed {tag.allowed()}")
        elif seen and ledger.manifests[repository, seen].state != KEPT:
            wrong.append(f"tag {repository}:{name} shows {seen}, which is not there by its digest")
        tag.settle(seen)
    for repository in {repository for repository, _ in ledger.tags} if lists else ():
        answer = registry.request("GET", f"/v2/{repository}/tags/list")
        due = sorted(name for (r, name), tag in ledger.tags.items() if r == repository and tag.acknowledged)
        listed = sorted(json.loads(answer.body).get("tags") or []) if answer.status == 200 else []
        if listed != due:
            wrong.append(f"list of {repository}: {listed}, due {due}")
    registry.close()
    return wrong


def look(ledger, key, item, answer):
    must_be, there = ledger.must_be(key, item), answer.status == 200
    kind = type(item).__name__.lower()
    if answer.status not in (200, 404) or must_be == (GONE if there else KEPT):
        yield f"{kind} {key[0]}@{key[1]}: status {answer.status}, must be {must_be}"
    elif there and answer.body != item.bytes():
        yield f"{kind} {key[0]}@{key[1]}: {len(answer.body)} bytes, not those that were pushed"
    ledger.set(key, item, KEPT if there else GONE)
    remember(ledger, key, item)


def remember(ledger, key, item):
    """What a worker may use again: a crash decides what is there without its knowing."""
    repository, name = key
    there = item.state == KEPT
    if isinstance(item, Manifest):
        images = ledger.images.setdefault(repository, [])
        if there and name not in images:
            images.append(name)
        elif not there and name in images:
            images.remove(name)
    elif not there:
        layers = ledger.layers.setdefault(repository, [])
        layers[:] = [layer for layer in layers if layer[0] != name]
