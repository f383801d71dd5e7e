"""The load of the crash runs: pushes of every kind from several threads, and a ledger of what was acknowledged."""

import http.client
import json
import random
import threading

from oci import Refused, Registry, digest, manifest

THREADS = 4
TAGS = 12                    # tags of a repository that are moved again and again
SMALL, LARGE = 64 << 10, 3 << 20
BYTES_LIMIT = 2 << 30        # past this only small blobs are pushed, so that a long run fits on a disk


def content(seed, size):
    return random.Random(seed).randbytes(size)


class Tag:
    """What a tag may show: the last acknowledged value, or one that was sent later and never answered."""

    def __init__(self):
        self.acknowledged, self.in_flight = None, None

    def allowed(self):
        return {self.acknowledged, self.in_flight} if self.in_flight else {self.acknowledged}

    def settle(self, seen):
        self.acknowledged, self.in_flight = seen, None


class Ledger:
    def __init__(self):
        self.blobs = {}      # (repository, digest) -> (seed, size)
        self.manifests = {}  # (repository, digest) -> bytes
        self.tags = {}       # (repository, tag) -> Tag
        self.bytes = 0
        self.refusals = []   # a server that runs must not refuse any of this


class Worker(threading.Thread):
    """Pushes to a repository of its own until `ended` is set or the server is gone."""

    def __init__(self, ledger, address, number, seed, ended, dark):
        super().__init__(daemon=True)
        self.ledger, self.address, self.ended, self.dark = ledger, address, ended, dark
        self.repository = f"crash/worker{number}"
        self.random = random.Random(seed)
        self.layers = []

    def run(self):
        registry = Registry(self.address)
        try:
            while not self.ended.is_set():
                step = self.random.choices([self.whole, self.chunked, self.tag, self.untagged], [4, 2, 4, 1])[0]
                step(registry)
        except (OSError, http.client.HTTPException):
            pass  # killed: what was in flight was not acknowledged
        except Refused as refusal:
            self.ledger.refusals.append(str(refusal))
        finally:
            registry.close()

    def whole(self, registry):
        self.blob(lambda data: registry.push_blob(self.repository, data))

    def chunked(self, registry):
        self.blob(lambda data: registry.push_blob_chunked(self.repository, data, max(1, len(data) // 3)))

    def blob(self, push):
        large = self.random.random() < 0.1 and self.ledger.bytes < BYTES_LIMIT
        seed, size = self.random.getrandbits(64), self.random.randrange(1, LARGE if large else SMALL)
        layer = self.answered(push(content(seed, size)))
        self.ledger.blobs[self.repository, layer[0]] = (seed, size)
        self.ledger.bytes += size
        self.layers = [*self.layers[-20:], layer]

    def answered(self, answer):
        """An answer counts if it came while there was power: a machine without any sends none."""
        if self.dark.is_set():
            raise ConnectionError("the power is gone")
        return answer

    def image(self):
        layers = self.random.sample(self.layers, min(len(self.layers), 3))
        return manifest(layers[0], layers, nonce=str(self.random.getrandbits(64)))

    def tag(self, registry):
        if not self.layers:
            return
        body, name = self.image(), f"t{self.random.randrange(TAGS)}"
        tag = self.ledger.tags.setdefault((self.repository, name), Tag())
        tag.in_flight = digest(body)
        tag.settle(self.answered(registry.push_manifest(self.repository, name, body)))
        self.ledger.manifests[self.repository, digest(body)] = body

    def untagged(self, registry):
        if not self.layers:
            return
        body = self.image()
        self.answered(registry.push_manifest(self.repository, digest(body), body))
        self.ledger.manifests[self.repository, digest(body)] = body


class Load:
    """Runs the workers. `stop` must come after the server was killed, or lets what is in flight end."""

    def __init__(self, ledger, address, seed):
        self.ended, self.dark = threading.Event(), threading.Event()
        self.workers = [Worker(ledger, address, n, seed * THREADS + n, self.ended, self.dark) for n in range(THREADS)]
        for worker in self.workers:
            worker.start()

    def running(self):
        return any(worker.is_alive() for worker in self.workers)

    def stop(self):
        self.ended.set()
        for worker in self.workers:
            worker.join()


def check(ledger, address, before, sample=200):
    """What is lost or wrong, as a list of sentences. All that is new since `before` is read, and a sample of the rest."""
    registry, wrong = Registry(address), []

    def chosen(items, known):
        items = list(items)
        old = items[:known]
        return random.sample(old, min(sample, len(old))) + items[known:]

    for (repository, name), (seed, size) in chosen(ledger.blobs.items(), before[0]):
        answer = registry.blob(repository, name)
        if answer.status != 200 or answer.body != content(seed, size):
            wrong.append(f"blob {repository}@{name} of {size} bytes: status {answer.status}, {len(answer.body)} bytes")
    for (repository, name), body in chosen(ledger.manifests.items(), before[1]):
        answer = registry.manifest(repository, name)
        if answer.status != 200 or answer.body != body:
            wrong.append(f"manifest {repository}@{name}: status {answer.status}")
    for (repository, name), tag in ledger.tags.items():
        answer = registry.manifest(repository, name)
        seen = digest(answer.body) if answer.status == 200 else None
        if seen not in tag.allowed():
            wrong.append(f"tag {repository}:{name}: status {answer.status}, {seen}, allowed {tag.allowed()}")
        if seen is not None and (repository, seen) not in ledger.manifests:
            ledger.manifests[repository, seen] = answer.body
        tag.settle(seen)
    for repository in {repository for repository, _ in ledger.tags}:
        answer = registry.request("GET", f"/v2/{repository}/tags/list")
        due = sorted(name for (r, name), tag in ledger.tags.items() if r == repository and tag.acknowledged)
        listed = sorted(json.loads(answer.body).get("tags") or []) if answer.status == 200 else []
        if listed != due:
            wrong.append(f"list of {repository}: {listed}, due {due}")
    registry.close()
    return wrong


def counts(ledger):
    return len(ledger.blobs), len(ledger.manifests)
