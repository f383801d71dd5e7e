#!/usr/bin/env python3
"""What ipfs.sh measures with, each in the namespace of the node that it asks.

    ipfs.py publish KIND ADDRESS COUNT -- COMMAND...   publishes; COMMAND runs `ipfs.py resolve` where the other one is
    ipfs.py resolve KIND ADDRESS                       reads "name", says when it leads to another root than before
    ipfs.py first ADDRESS REPOSITORY TAG               milliseconds from the request of a tag to the first byte of its layer
    ipfs.py delay LISTEN TARGET MILLISECONDS           a proxy: each byte arrives so much later, as many at once as come

KIND is sampan, go or kubo. All processes read CLOCK_MONOTONIC of the same machine. Sampan's time begins with the 201 of a
manifest, that of the others with the call that publishes.
"""

import asyncio
import base64
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.parse

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "outer"))
from oci import Registry, blobs_of, manifest  # noqa: E402

REPOSITORY = "bench/names"
GIVE_UP = 60   # seconds until a root counts as lost
POLL = 0.002   # seconds between two questions
PAUSE = 0.3    # seconds between two publications


class Peer:
    """The control port of a Go peer, or kubo's RPC."""

    def __init__(self, kind, address):
        self.kubo = kind == "kubo"
        host, port = address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=GIVE_UP)

    def ask(self, method, word, **query):
        method, prefix = ("POST", "/api/v0/") if self.kubo else (method, "/")
        self.connection.request(method, f"{prefix}{word}?{urllib.parse.urlencode(query)}")
        answer = self.connection.getresponse()
        body = answer.read()
        return json.loads(body) if answer.status == 200 else {}

    def resolve(self, name):
        more = {"nocache": "true", "dht-timeout": "5s"} if self.kubo else {"timeout": 5}
        answer = self.ask("GET", "name/resolve", arg=name, **more)
        return answer.get("Path") or answer.get("path")

    def publish(self, number):
        """An identity CID, which everybody has."""
        data = b"%d" % number
        cid = "b" + base64.b32encode(bytes([1, 0x55, 0, len(data)]) + data).decode().lower().rstrip("=")
        more = {"allow-offline": "true"} if self.kubo else {}
        if not self.ask("POST", "name/publish", arg=f"/ipfs/{cid}" if self.kubo else cid, **more):
            sys.exit("the peer does not publish")

    def name(self):
        answer = self.ask("GET", "id")
        return answer.get("ID") or answer.get("id")


class Sampan:
    def __init__(self, address, name):
        self.registry, self.published = Registry(address), name
        self.config = self.registry.push_blob(REPOSITORY, b"{}")
        self.layer = self.registry.push_blob(REPOSITORY, os.urandom(4096))

    def name(self):
        return self.published

    def publish(self, number):
        body = manifest(self.config, [self.layer], number=str(number))
        self.registry.push_manifest(REPOSITORY, f"t{number:04}", body)


def resolve(kind, address):
    peer, before = Peer(kind, address), None
    for line in sys.stdin:
        name, deadline = line.strip(), time.monotonic() + GIVE_UP
        while time.monotonic() < deadline:
            found = peer.resolve(name)
            now = time.monotonic()
            if found and found != before:
                break
            time.sleep(POLL)
        else:
            print("lost", flush=True)
            continue
        before = found
        print(now, flush=True)


def publish(kind, address, count, command):
    publisher = Sampan(address, os.environ["NAME"]) if kind == "sampan" else Peer(kind, address)
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    name, times, lost = publisher.name(), [], 0
    for number in range(count + 1):
        began = time.monotonic()
        publisher.publish(number)
        if kind == "sampan":
            began = time.monotonic()
        print(name, file=watcher.stdin, flush=True)
        seen = watcher.stdout.readline().strip()
        # The first one finds the way, and what was published before may still be on it.
        if number and seen == "lost":
            lost += 1
        elif number:
            times.append(1000 * (float(seen) - began))
        time.sleep(PAUSE)
    watcher.stdin.close()
    watcher.wait()
    if lost or not times:
        sys.exit(f"{lost} of {count} were not resolved")
    times.sort()
    print(f"{times[len(times) // 2]:.1f} {times[min(len(times) - 1, len(times) * 99 // 100)]:.1f}")


def first(address, repository, tag):
    registry, deadline = Registry(address, timeout=GIVE_UP), time.monotonic() + GIVE_UP
    # Its record and its directories come by themselves.
    while registry.manifest(repository, tag, "HEAD").status != 200:
        if time.monotonic() > deadline:
            sys.exit(f"{tag} does not come")
        time.sleep(POLL)
    began = time.monotonic()
    body = registry.manifest(repository, tag).body
    registry.connection.request("GET", f"/v2/{repository}/blobs/{blobs_of(body)[1]}")
    answer = registry.connection.getresponse()
    if answer.status != 200 or not answer.read(1):
        sys.exit(f"the layer of {tag} is answered with {answer.status}")
    print(f"{1000 * (time.monotonic() - began):.1f}")


async def delay(listen, target, milliseconds):
    async def later(reader, writer):
        queue = asyncio.Queue()

        async def send():
            while (item := await queue.get()) is not None:
                due, data = item
                await asyncio.sleep(max(0, due - time.monotonic()))
                writer.write(data)
                await writer.drain()
            writer.close()

        sending = asyncio.create_task(send())
        while data := await reader.read(1 << 16):
            queue.put_nowait((time.monotonic() + milliseconds / 1000, data))
        queue.put_nowait(None)
        await sending

    async def serve(reader, writer):
        there = await asyncio.open_connection(*target.rsplit(":", 1))
        await asyncio.gather(later(reader, there[1]), later(there[0], writer), return_exceptions=True)

    host, port = listen.rsplit(":", 1)
    async with await asyncio.start_server(serve, host, int(port)) as server:
        await server.serve_forever()


if __name__ == "__main__":
    word, rest = sys.argv[1], sys.argv[2:]
    if word == "publish":
        publish(rest[0], rest[1], int(rest[2]), rest[4:])
    elif word == "delay":
        asyncio.run(delay(rest[0], rest[1], int(rest[2])))
    else:
        {"resolve": resolve, "first": first}[word](*rest)
