#!/usr/bin/env python3
"""Many connections that mean no good: wrong passwords, bodies and heads of requests that trickle and never end, and
handshakes that are never finished (or, without TLS, connections that say nothing). Started by flood.sh.

Two more kinds, with --kinds: heads that come at once but never end, and readers that ask for a layer
and do not read it.

Prints "up" when all have been opened once, and at the end a line of counts for each kind. A connection that the server
ends is opened again.
"""

import argparse
import asyncio
import base64
import collections
import os
import resource
import ssl
import sys
import time

PAUSE = 1.0      # seconds between two bytes, and between two passwords of one connection
AGAIN = 0.5      # seconds until a connection that was ended is opened again
RAMP = 0.002     # seconds between two first connections
BODY = 1 << 20   # bytes that a trickling body announces
FAT = 100 << 10  # bytes of a fat head
SPARE = 200      # files beside the connections

# A TLS record with a ClientHello of 512 bytes is announced, and its first bytes come (RFC 8446, 4.1.2 and 5.1).
HELLO = bytes([22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3])


class Flood:
    def __init__(self, options):
        self.options = options
        self.opened, self.ended, self.answers = (collections.Counter() for _ in range(3))
        self.open_now, self.peak = 0, 0
        self.good = basic(options.user) if options.user else ""
        self.tls = ssl.create_default_context() if options.tls else None
        if self.tls:
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.first = asyncio.Event()

    async def run(self):
        kinds = {kind: getattr(self, kind) for kind in self.options.kinds}
        tasks = []
        for number in range(self.options.connections):
            kind = list(kinds)[number % len(kinds)]
            tasks.append(asyncio.create_task(self.keep(kind, kinds[kind], number)))
            await asyncio.sleep(RAMP)
        deadline = time.monotonic() + 30
        while sum(self.opened.values()) < len(tasks) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        print("up", flush=True)
        await asyncio.sleep(self.options.seconds)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for kind in kinds:
            answers = ", ".join(f"{count} x {status}" for (k, status), count in sorted(self.answers.items()) if k == kind)
            print(f"{kind}: {self.opened[kind]} opened, {self.ended[kind]} ended by the server; "
                  f"answers: {answers or 'none'}")
        print(f"at most {self.peak} at once")

    async def keep(self, kind, talk, number):
        """One connection, opened again and again."""
        host, port = self.options.address.rsplit(":", 1)
        tls = None if kind == "handshake" else self.tls
        while True:
            writer = None
            try:
                reader, writer = await asyncio.open_connection(host, int(port), ssl=tls, limit=1 << 16)
                self.opened[kind] += 1
                self.open_now += 1
                self.peak = max(self.peak, self.open_now)
                await talk(reader, writer, number)
            except (OSError, EOFError, ValueError):
                pass
            finally:
                if writer is not None:
                    self.open_now -= 1
                    writer.transport.abort()
            self.ended[kind] += 1
            await asyncio.sleep(AGAIN)

    async def password(self, reader, writer, number):
        while True:
            wrong = basic(f"user{number}:{os.urandom(6).hex()}")
            self.send(writer, "GET /v2/", wrong)
            await self.answer("password", reader)
            await asyncio.sleep(PAUSE)

    async def body(self, reader, writer, number):
        """An upload or a manifest that never ends; with the right password where one is given to every other one."""
        allowed = self.good if number // 4 % 2 else ""
        repository = f"flood/slow{number}"
        if number // 8 % 2:
            line, content = f"PUT /v2/{repository}/manifests/slow", "application/vnd.oci.image.manifest.v1+json"
        else:
            self.send(writer, f"POST /v2/{repository}/blobs/uploads/", f"{allowed}Content-Length: 0\r\n")
            headers = await self.answer("body", reader)
            line, content = f"PATCH {headers.get('location', '/v2/none')}", "application/octet-stream"
        self.send(writer, line, f"{allowed}Content-Type: {content}\r\nContent-Length: {BODY}\r\n")
        await self.trickle("body", reader, writer, b"{")

    async def head(self, reader, writer, number):
        self.send(writer, f"GET /v2/flood/slow{number}/tags/list", "X-Slow: ", end="")
        await self.trickle("head", reader, writer, b"x")

    async def fat_head(self, reader, writer, number):
        self.send(writer, f"GET /v2/flood/slow{number}/tags/list", f"X-Fat: {'x' * FAT}", end="")
        await self.trickle("fat_head", reader, writer, b"x")

    async def reader(self, reader, writer, _number):
        self.send(writer, f"GET {self.options.layer}", self.good)
        await reader.readexactly(1)
        writer.transport.pause_reading()
        await asyncio.sleep(3600)

    async def silence(self, reader, writer, _number):
        await self.trickle("silence", reader, writer, b"")

    async def handshake(self, reader, writer, number):
        """Every other one goes on a byte at a time, the rest say nothing more."""
        writer.write(HELLO)
        await self.trickle("handshake", reader, writer, b"\0" if number // 4 % 2 else b"")

    def send(self, writer, line, headers, end="\r\n"):
        writer.write(f"{line} HTTP/1.1\r\nHost: {self.options.address}\r\n{headers}{end}".encode())

    async def trickle(self, kind, reader, writer, byte):
        """Until the server answers or hangs up."""
        answer = asyncio.ensure_future(self.answer(kind, reader))
        try:
            while not (await asyncio.wait([answer], timeout=PAUSE))[0]:
                if byte:
                    writer.write(byte)
            await answer
        finally:
            answer.cancel()

    async def answer(self, kind, reader):
        """The head of one answer; its body is read and dropped."""
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        self.answers[kind, lines[0].split()[1]] += 1
        fields = [line.split(":", 1) for line in lines[1:] if ":" in line]
        headers = {name.lower(): value.strip() for name, value in fields}
        await reader.readexactly(int(headers.get("content-length", 0)))
        return headers


def basic(pair):
    return f"Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--address", required=True)
    parser.add_argument("--connections", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--user", help="name:password")
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--kinds", type=lambda text: text.split(","), help="password,body,head and handshake or silence")
    parser.add_argument("--layer", help="path that readers ask for")
    options = parser.parse_args()
    options.kinds = options.kinds or ["password", "body", "head", "handshake" if options.tls else "silence"]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard < options.connections + SPARE:
        sys.exit(f"flood: {options.connections} connections do not fit into {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(Flood(options).run())


if __name__ == "__main__":
    main()
