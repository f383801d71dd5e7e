"""The rows that can be asked for. Each takes a server and the options, and gives its figures by name; `report.py` knows
their titles, units and bars."""

import http.client
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time

from client import Layers, image, mib, parallel, pull, settle, spread
from oci import MANIFEST, Registry, blobs_of, manifest
from servers import ADDRESS, MIB

REPOSITORY = "bench/image"
AT_ONCE = 8            # pushes of row `eight`
WRK = ["wrk", "-t2", "-c32", "-d5s", "-H", f"Accept: {MANIFEST}"]
SAMPLES = 200          # images pushed, and pulled, one by one for a median
SAMPLE_LAYER = 64 << 10
WRITES = 50            # tag pushes of row `write`, each with time for a fold of its own
WRITE_PAUSE = 0.2      # seconds
STARTS = 5             # starts for a median
KILLS = 3
LOAD_BEFORE_KILL = 3   # seconds
PAGE = 100
TAGS_OF_A_REPOSITORY = 10


def layers_of(options):
    if not hasattr(options, "layers"):
        options.layers = Layers(f"{options.work}/static/layer", options.size * MIB)
    return options.layers


def layer(server, options):
    """Idle memory, one push of one layer, one pull of it, disk."""
    layers = layers_of(options)
    layers.digest(0)
    if server.name == "nginx":
        server.data = os.path.dirname(layers.path)
        server.start(clean=False)
        figures = pulled(server, f"http://{ADDRESS}/layer")
        server.stop()
        return figures
    server.start()
    settle()
    figures = {"idle.memory": server.memory("VmRSS")}
    before = server.cpu()
    figures["push.wall"] = layers.push(REPOSITORY, 0)
    settle()
    figures["push.cpu"] = server.cpu() - before
    figures["push.memory"] = server.memory("VmHWM")
    figures |= pulled(server, f"http://{ADDRESS}/v2/{REPOSITORY}/blobs/{layers.digest(0)}")
    figures["layer.disk"] = 100 * (server.disk() - mib(layers.size)) / mib(layers.size)
    server.stop()
    return figures


def pulled(server, url):
    before = server.cpu()
    wall = pull(url)
    settle()
    return {"pull.wall": wall, "pull.cpu": server.cpu() - before}


def eight(server, options):
    """As many different layers at once."""
    layers = layers_of(options)
    parallel(AT_ONCE, layers.digest)
    server.start()
    settle()
    before = server.cpu()
    figures = {"eight.wall": parallel(AT_ONCE, lambda number: layers.push(f"{REPOSITORY}{number}", number))}
    settle()
    figures["eight.cpu"] = server.cpu() - before
    figures["eight.memory"] = server.memory("VmHWM")
    server.stop()
    return figures


def get(server, _options):
    """A manifest by tag, as often as it goes."""
    server.start()
    registry = Registry(ADDRESS)
    registry.push_manifest(REPOSITORY, "latest", image(registry, REPOSITORY, 1024)())
    registry.close()
    settle()
    before = server.cpu()
    url = f"http://{ADDRESS}/v2/{REPOSITORY}/manifests/latest"
    output = subprocess.run([*WRK, url], capture_output=True, text=True, check=True).stdout
    cpu = server.cpu() - before
    server.stop()
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(f"{server.name}: {output}")
    rate = float(next(line.split()[1] for line in output.splitlines() if line.startswith("Requests/sec")))
    requests = int(next(line.split()[0] for line in output.splitlines() if "requests in" in line))
    return {"get.rate": rate, "get.cpu": 1e6 * cpu / requests}


def tags(server, options):
    """Many tags in one repository, each with a manifest and a config of its own over one layer."""
    server.start()
    registry = Registry(ADDRESS)
    shared = registry.push_blob(REPOSITORY, os.urandom(1024))
    registry.close()
    before, cpu = server.disk(), server.cpu()

    def push(client, number):
        config = client.push_blob(REPOSITORY, b'{"number":%d}' % number)
        client.push_manifest(REPOSITORY, f"t{number:06}", manifest(config, [shared]))

    wall = spread(range(options.tags), push)
    settle()
    figures = {"tags.rate": options.tags / wall, "tags.cpu": 1e3 * (server.cpu() - cpu) / options.tags}
    settle()
    settle()
    figures |= {"tags.memory": server.memory("VmRSS"), "tags.disk": (server.disk() - before) * 1024 / options.tags}
    server.stop()
    server.start(clean=False)
    settle()
    figures["tags.memory_again"] = server.memory("VmRSS")
    server.stop()
    return figures


def write(server, options):
    """What one more tag writes to the disk, where there are many."""
    server.start()
    registry = Registry(ADDRESS)
    make = image(registry, REPOSITORY, 1024)
    spread(range(options.tags // 2), lambda client, number: client.push_manifest(
        REPOSITORY, f"t{number:06}", make(number=str(number))))
    settle()
    settle()
    before = server.written()
    for number in range(WRITES):
        registry.push_manifest(REPOSITORY, f"more{number}", make(more=str(number)))
        time.sleep(WRITE_PAUSE)
    settle()
    settle()
    figures = {"write.bytes": mib(server.written() - before) / WRITES}
    registry.close()
    server.stop()
    return figures


def page(server, options):
    """All pages of a very long list, one after the other."""
    server.start()
    registry = Registry(ADDRESS)
    body = image(registry, REPOSITORY, 1024)()
    spread(range(options.many), lambda client, number: client.push_manifest(REPOSITORY, f"t{number:06}", body))
    registry.close()
    settle()
    server.stop()
    server.start(clean=False)
    settle()
    registry = Registry(ADDRESS)
    server.forget_peak()
    before, times, last, seen = server.memory("VmRSS"), [], "", 0
    while True:
        began = time.monotonic()
        answer = registry.request("GET", f"/v2/{REPOSITORY}/tags/list?n={PAGE}&last={last}", due=200)
        times.append(1000 * (time.monotonic() - began))
        seen += answer.body.count(b'"t')
        if "Link" not in answer.headers:
            break
        last = answer.body.rsplit(b'"', 2)[1].decode()
    # The member "tags" counts once for each page.
    if seen - len(times) != options.many:
        sys.exit(f"{server.name} lists {seen - len(times)} of {options.many} tags")
    times.sort()
    figures = {"page.median": statistics.median(times), "page.p99": times[len(times) * 99 // 100],
               "page.memory": max(0.0, server.memory("VmHWM") - before)}
    registry.close()
    server.stop()
    return figures


def store(server, options):
    """An empty registry, then one of many repositories: what a push, a pull and a start cost, and a start after kill -9.
    Gives the figures of both."""
    repositories = options.many // TAGS_OF_A_REPOSITORY
    server.start()
    empty = sampled(server, [], random.Random(1))
    server.stop()
    empty["store.start"] = restarted(server)
    server.start()
    names = [f"store/r{number:05}" for number in range(repositories)]
    registry = Registry(ADDRESS)
    make = image(registry, "store/base", SAMPLE_LAYER)
    first = make()

    def fill(client, name):
        if not all([client.mount(name, blob, "store/base") for blob in blobs_of(first)]):
            sys.exit(f"{server.name} does not mount into {name}")
        for number in range(TAGS_OF_A_REPOSITORY):
            client.push_manifest(name, f"t{number}", make(name=name, number=str(number)))

    spread(names, fill)
    ready = []
    for number in range(KILLS):
        killed_under_load(server, names, make, number)
        ready.append(server.start(clean=False))
    full = sampled(server, names, random.Random(2))
    settle()
    full["store.memory"] = server.memory("VmRSS")
    server.stop()
    full["store.start"] = restarted(server)
    full["store.ready"] = full["store.start"]
    full["store.ready_killed"] = 1000 * statistics.median(ready)
    return {server.name: full, f"{server.name}, empty": empty}


def sampled(server, names, choice):
    """Milliseconds, by the clock and by the processor, of a push and of a pull of a small image. Without names it
    pulls what it pushed, else tags of these."""
    registry = Registry(ADDRESS)
    make, wall = image(registry, "sample/base", SAMPLE_LAYER), []
    settle()
    before = server.cpu()
    pushed = [(choice.choice(names) if names else f"sample/r{number:05}", f"s{number}") for number in range(SAMPLES)]
    for name, tag in pushed:
        began = time.monotonic()
        make = image(registry, name, SAMPLE_LAYER)
        registry.push_manifest(name, tag, make())
        wall.append(1000 * (time.monotonic() - began))
    settle()
    figures = {"store.push": statistics.median(wall), "store.push_cpu": 1000 * (server.cpu() - before) / SAMPLES}
    pulled_tags = pushed
    if names:
        pulled_tags = [(name, f"t{choice.randrange(TAGS_OF_A_REPOSITORY)}") for name in choice.choices(names, k=SAMPLES)]
    wall, before = [], server.cpu()
    for name, tag in pulled_tags:
        began = time.monotonic()
        body = registry.manifest(name, tag).body
        for blob in blobs_of(body):
            if registry.blob(name, blob).status != 200:
                sys.exit(f"{server.name} has lost {name}@{blob}")
        wall.append(1000 * (time.monotonic() - began))
    figures |= {"store.pull": statistics.median(wall), "store.pull_cpu": 1000 * (server.cpu() - before) / SAMPLES}
    registry.close()
    return figures


def restarted(server):
    """Milliseconds from a start to the first answer, after an ordered stop."""
    times = []
    for _ in range(STARTS):
        times.append(1000 * server.start(clean=False))
        server.stop()
    return statistics.median(times)


def killed_under_load(server, names, make, seed):
    ended, choice = threading.Event(), random.Random(seed)

    def load(number):
        registry = Registry(ADDRESS)
        while not ended.is_set():
            try:
                registry.push_manifest(choice.choice(names), f"k{number}", make(nonce=str(choice.getrandbits(64))))
            except (OSError, http.client.HTTPException):
                break  # killed

    threads = [threading.Thread(target=load, args=(number,), daemon=True) for number in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(LOAD_BEFORE_KILL)
    server.stop(signal.SIGKILL)
    ended.set()
    for thread in threads:
        thread.join()


def binary(server, _options):
    return {"binary": mib(os.path.getsize(server.binary))}


# Which servers a row is about: some have nothing to compare, and zot writes its whole index.json for each tag.
ROWS = {
    "layer": (layer, ["nginx", "Distribution", "zot", "Sampan"]),
    "eight": (eight, ["Distribution", "zot", "Sampan"]),
    "get": (get, ["Distribution", "zot", "Sampan"]),
    "tags": (tags, ["Distribution", "Sampan"]),
    "write": (write, ["Distribution", "Sampan"]),
    "page": (page, ["Sampan"]),
    "store": (store, ["Sampan"]),
    "binary": (binary, ["Distribution", "zot", "Sampan"]),
}
# These are taken several times, by turns.
IN_TURNS = ["layer", "eight", "get"]
