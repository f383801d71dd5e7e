#!/usr/bin/env python3
"""Measures registries side by side and prints a Markdown table. Started by run.sh; README.md says how to read it."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "outer"))

from oci import Registry, manifest  # noqa: E402

PORT = 5060
ADDRESS = f"127.0.0.1:{PORT}"
READY = 30   # seconds
SETTLE = 2   # seconds after a piece of work, so that what a server does behind its answer is counted
PUSHERS = 4  # connections that push tags
MIB = 1 << 20
TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """One server on new data. `line` gives its command line for a data directory."""

    def __init__(self, name, binary, line, work):
        self.name, self.binary, self.line, self.work = name, binary, line, work
        self.data, self.process = f"{work}/{name}", None

    def start(self, clean=True):
        if clean:
            shutil.rmtree(self.data, ignore_errors=True)
            os.makedirs(self.data)
        with open(f"{self.work}/{self.name}.log", "ab") as log:
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.line(self.data)], stdout=log, stderr=log)
        deadline = time.monotonic() + READY
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://{ADDRESS}/v2/", timeout=READY):
                    return
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.02)
        sys.exit(f"{self.name} does not start, see {self.work}/{self.name}.log (KEEP=1 keeps it)")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def cpu(self):
        """Seconds of processor time so far, of all its threads."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self, field):
        """VmRSS (now) or VmHWM (peak) in MiB."""
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith(field))

    def disk(self):
        """MiB that its data takes on disk, in whole blocks."""
        return int(subprocess.check_output(["du", "-sk", self.data]).split()[0]) / 1024

    def timed(self, command):
        """Runs curl; its wall time by its own clock, and the server's processor time until it has settled."""
        before = self.cpu()
        answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        if answer[0] not in ("200", "201"):
            sys.exit(f"{self.name}: {' '.join(command)}: {answer[0]}")
        time.sleep(SETTLE)
        return float(answer[1]), self.cpu() - before


CURL = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{time_total}", "-H", "Expect:"]


def layer(server, blob, name):
    """One push and one pull of the layer on new data."""
    server.start()
    time.sleep(SETTLE)
    figures = {"memory, idle and empty": server.memory("VmRSS")}
    registry = Registry(ADDRESS)
    location = registry.begin("bench/layer")
    registry.close()
    figures["push, wall"], figures["push, CPU"] = server.timed(
        [*CURL, "-T", blob, "-H", "Content-Type: application/octet-stream", f"http://{ADDRESS}{location}digest={name}"])
    figures["memory, peak of the push"] = server.memory("VmHWM")
    figures["pull, wall"], figures["pull, CPU"] = server.timed([*CURL, f"http://{ADDRESS}/v2/bench/layer/blobs/{name}"])
    figures["disk beside the layer"] = server.disk() - os.path.getsize(blob) / MIB
    server.stop()
    return figures


def static(server, blob):
    """What a plain file server needs for the same pull."""
    os.makedirs(server.data, exist_ok=True)
    server.start(clean=False)
    wall, cpu = server.timed([*CURL, f"http://{ADDRESS}/{os.path.basename(blob)}"])
    server.stop()
    return {"pull, wall": wall, "pull, CPU": cpu}


def tags(server, count):
    """`count` tags of one small image in one repository."""
    server.start()
    registry = Registry(ADDRESS)
    body = manifest(registry.push_blob("bench/tags", b"{}"), [registry.push_blob("bench/tags", os.urandom(1024))])
    registry.close()
    before = server.disk()
    began, failures = time.monotonic(), []

    def push(first):
        client = Registry(ADDRESS)
        try:
            for number in range(first, count, PUSHERS):
                client.push_manifest("bench/tags", f"t{number:06}", body)
        except Exception as failure:  # the thread's end is the caller's error
            failures.append(failure)
        client.close()

    threads = [threading.Thread(target=push, args=(first,)) for first in range(PUSHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        sys.exit(f"{server.name}: {failures[0]}")
    wall = time.monotonic() - began
    time.sleep(5 * SETTLE)
    figures = {"tags, pushed a second": count / wall, "memory, idle after the tags": server.memory("VmRSS"),
               "disk, KiB a tag": (server.disk() - before) * 1024 / count}
    server.stop()
    server.start(clean=False)
    time.sleep(SETTLE)
    figures["memory, idle after a restart with the tags"] = server.memory("VmRSS")
    server.stop()
    return figures


def distribution(binary, work):
    def line(data):
        with open(f"{work}/distribution.yml", "w", encoding="utf-8") as config:
            config.write(f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
                         f"storage:\n  filesystem: {{rootdirectory: {data}}}\n  delete: {{enabled: true}}\n"
                         f"http: {{addr: '{ADDRESS}'}}\n")
        return ["env", "OTEL_TRACES_EXPORTER=none", binary, "serve", f"{work}/distribution.yml"]

    return Server("Distribution", binary, line, work)


def zot(binary, work):
    def line(data):
        with open(f"{work}/zot.json", "w", encoding="utf-8") as config:
            json.dump({"distSpecVersion": "1.1.1", "storage": {"rootDirectory": data}, "log": {"level": "error"},
                       "http": {"address": "127.0.0.1", "port": str(PORT)}}, config)
        return [binary, "serve", f"{work}/zot.json"]

    return Server("zot", binary, line, work)


def sampan(binary, work):
    return Server("Sampan", binary, lambda data: [
        binary, "serve", "--data", data, "--addr", ADDRESS, "--p2p", "/ip4/127.0.0.1/tcp/4060"], work)


def nginx(binary, work):
    def line(_data):
        with open(f"{work}/nginx.conf", "w", encoding="utf-8") as config:
            config.write(f"daemon off; master_process off; user root; pid {work}/nginx.pid; error_log {work}/nginx.log;\n"
                         f"events {{}}\nhttp {{ access_log off; sendfile on; client_body_temp_path {work}/nginx-body;\n"
                         f"server {{ listen {ADDRESS}; root {work}/static; }} }}\n")
        return [binary, "-c", f"{work}/nginx.conf"]

    return Server("nginx", binary, line, work)


def main():
    parser = argparse.ArgumentParser()
    for name in ("work", "sampan", "distribution", "nginx"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--zot")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tags", type=int, default=10_000)
    options = parser.parse_args()
    work = options.work

    os.makedirs(f"{work}/static")
    blob = f"{work}/static/layer"
    subprocess.run(["head", "-c", str(options.size * MIB), "/dev/urandom"], stdout=open(blob, "wb"), check=True)
    name = "sha256:" + subprocess.check_output(["sha256sum", blob], text=True).split()[0]

    files = nginx(options.nginx, work)
    registries = [distribution(options.distribution, work), sampan(options.sampan, work)]
    if options.zot:
        registries.insert(1, zot(options.zot, work))
    seen = {server.name: [] for server in [files, *registries]}
    for _ in range(options.rounds):  # one after the other, so that the machine's mood falls on all
        seen[files.name].append(static(files, blob))
        for server in registries:
            seen[server.name].append(layer(server, blob, name))
            shutil.rmtree(server.data)
    figures = {}
    for server in [files, *registries]:
        rounds = seen[server.name]
        figures[server.name] = {what: statistics.median(figure[what] for figure in rounds) for what in rounds[0]}
    for server in registries:
        figures[server.name] |= tags(server, options.tags)
        figures[server.name]["binary"] = os.path.getsize(server.binary) / MIB
        shutil.rmtree(server.data)

    units = {"push": "s", "pull": "s", "memory": "MiB", "binary": "MiB", "disk beside": "MiB"}
    print(f"One layer of {options.size} MiB, median of {options.rounds}; {options.tags} tags of one image.\n")
    print("| what | " + " | ".join(figures) + " | Sampan / Distribution |")
    print("|---" * (len(figures) + 2) + "|")
    for what in figures["Sampan"]:
        unit = next((unit for start, unit in units.items() if what.startswith(start)), "")
        cells = [f"{values[what]:.2f}" if what in values else "-" for values in figures.values()]
        peer = figures["Distribution"][what]
        ratio = f"{figures['Sampan'][what] / peer:.2f}" if peer > 0 else "-"
        print(f"| {what}{', ' + unit if unit else ''} | " + " | ".join(cells) + f" | {ratio} |")


if __name__ == "__main__":
    main()
