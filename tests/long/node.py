"""A running Sampan, as the long tests start, ask and kill it."""

import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "outer"))

from oci import Registry  # noqa: E402

READY = 20     # seconds from a start to the first answer
COMMAND = 300  # seconds that a command on a node's data may take
SETTLED = 0.5  # seconds from the end of a node to when that is known


class Broken(Exception):
    """What must not happen has happened."""


class Node:
    def __init__(self, binary, data, log, *flags, namespace=None):
        enter = ["nsenter", f"--net={namespace}"] if namespace else []
        # The node dies with this script.
        self.start_line = [*enter, "setpriv", "--pdeathsig", "KILL", binary, "serve", "--data", data, *flags]
        self.binary, self.data = binary, data
        self.log, self.process, self.fail_point = log, None, None

    def start(self, fail_point=None):
        self.fail_point = fail_point
        environment = dict(os.environ, **({"SAMPAN_FAILPOINT": fail_point} if fail_point else {}))
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.start_line, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                            stderr=log)

    def alive(self):
        return self.process.poll() is None

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(timeout=30)

    def ready(self, address):
        """Seconds until the node answers; None if it died."""
        began = time.monotonic()
        while time.monotonic() - began < READY:
            if not self.alive():
                return None
            try:
                registry = Registry(address, timeout=READY)
                if registry.request("GET", "/v2/").status == 200:
                    return time.monotonic() - began
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.01)
        raise Broken(f"no answer from {address} within {READY} s")

    def status(self):
        """The node's status, or None while it cannot be asked."""
        answer = self.command("status", "--json")
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def command(self, name, *arguments):
        return subprocess.run([self.binary, "--data", self.data, name, *arguments], capture_output=True, text=True,
                              timeout=COMMAND, check=False)

    def blob_file(self, name):
        """Where its data directory has a blob."""
        algorithm, hexadecimal = name.split(":")
        return f"{self.data}/blobs/{algorithm}/{hexadecimal[:2]}/{hexadecimal}"

    def knows(self, command):
        """Whether the binary has a command."""
        return self.command(command, "--help").returncode == 0


class Collector(threading.Thread):
    """Collects a node's garbage, again and again, with one of these grace periods, or that of its configuration."""

    def __init__(self, node, *graces):
        super().__init__(daemon=True)
        self.node, self.ended, self.broken = node, threading.Event(), []
        self.graces = [["--grace", grace] for grace in graces] or [[]]
        self.times, self.blobs, self.bytes = 0, 0, 0

    def run(self):
        while not self.ended.wait(random.uniform(0, 0.1)):
            answer = self.node.command("gc", "--json", *random.choice(self.graces))
            if answer.returncode == 0:
                gone = json.loads(answer.stdout)
                self.times += 1
                self.blobs += gone["blobs"]
                self.bytes += gone["bytes"]
            elif not self.ended.wait(SETTLED) and self.node.alive():
                self.broken.append(f"sampan gc ends with {answer.returncode}: {answer.stderr.strip()}")
                return

    def stop(self):
        self.ended.set()
        self.join()
