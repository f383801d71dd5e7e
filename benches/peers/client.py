"""What the measurements send. It takes as little of the shared cores as it can."""

import hashlib
import http.client
import mmap
import os
import subprocess
import sys
import threading
import time

from oci import Registry, manifest
from servers import ADDRESS, MIB, SETTLE

CONNECTIONS = 4    # that push many small things
TIMEOUT = 600      # seconds


class Layers:
    """Layers of one size out of one file of random bytes: each begins at another place of it and goes round, so that
    they share neither their digest nor a part at the same offset."""

    def __init__(self, path, size):
        self.path, self.size = path, size
        with open(path, "wb") as file:
            subprocess.run(["head", "-c", str(size), "/dev/urandom"], stdout=file, check=True)
        self.digests = {}

    def start(self, number):
        return number * (self.size // 16 + 4096) % self.size

    def digest(self, number):
        if number not in self.digests:
            with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                whole, start = hashlib.sha256(), self.start(number)
                with memoryview(data) as view, view[start:] as head, view[:start] as tail:
                    whole.update(head)
                    whole.update(tail)
            self.digests[number] = "sha256:" + whole.hexdigest()
        return self.digests[number]

    def push(self, repository, number):
        """One PUT with the whole layer, sent by sendfile; seconds until it is answered."""
        registry = Registry(ADDRESS, timeout=TIMEOUT)
        location = registry.begin(repository)
        connection, start = registry.connection, self.start(number)
        began = time.monotonic()
        connection.putrequest("PUT", f"{location}digest={self.digest(number)}")
        connection.putheader("Content-Type", "application/octet-stream")
        connection.putheader("Content-Length", str(self.size))
        connection.endheaders()
        with open(self.path, "rb") as file:
            connection.sock.sendfile(file, start, self.size - start)
            if start:
                connection.sock.sendfile(file, 0, start)
        answer = connection.getresponse()
        body = answer.read()
        took = time.monotonic() - began
        registry.close()
        if answer.status != 201:
            raise http.client.HTTPException(f"a layer was answered with {answer.status}: {body[:200]!r}")
        return took


def pull(url):
    """Seconds that curl needs for it, by its own clock."""
    answer = subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{time_total}", url],
                            capture_output=True, text=True, check=True).stdout.split()
    if answer[0] != "200":
        sys.exit(f"{url}: {answer[0]}")
    return float(answer[1])


def parallel(count, work):
    """Runs work(0) to work(count - 1) at once; seconds until the last is done."""
    failures = []

    def run(number):
        try:
            work(number)
        except Exception as failure:  # the thread's end is the caller's error
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.monotonic() - began


def spread(items, work):
    """Runs work(registry, item) for all items over a few connections; seconds until all are done."""
    items = list(items)

    def run(number):
        registry = Registry(ADDRESS, timeout=TIMEOUT)
        for item in items[number::CONNECTIONS]:
            work(registry, item)
        registry.close()

    return parallel(CONNECTIONS, run)


def image(registry, repository, layer_bytes):
    """Pushes a config and a layer; gives what makes manifests of them."""
    config = registry.push_blob(repository, os.urandom(1024))
    layer = registry.push_blob(repository, os.urandom(layer_bytes))
    return lambda **annotations: manifest(config, [layer], **annotations)


def settle():
    time.sleep(SETTLE)


def mib(size):
    return size / MIB
