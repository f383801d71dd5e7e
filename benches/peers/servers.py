"""The servers that are measured: how each is started, asked what it has used, and stopped."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import time

PORT = 5060
ADDRESS = f"127.0.0.1:{PORT}"
READY = 60   # seconds
SETTLE = 2   # seconds after a piece of work, so that what a server does behind its answer is counted
MIB = 1 << 20
TICK = os.sysconf("SC_CLK_TCK")


class Server:
    """One server on data of its own. `line` gives its command line for a data directory."""

    def __init__(self, name, binary, line, work):
        self.name, self.binary, self.line, self.work = name, binary, line, work
        self.data, self.process = f"{work}/{name}", None

    def start(self, clean=True):
        """Seconds until its first answer."""
        if clean:
            self.clear()
            os.makedirs(self.data)
        line = self.line(self.data)
        with open(f"{self.work}/{self.name}.log", "ab") as log:
            began = time.monotonic()
            # It dies with this script.
            self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *line], stdout=log, stderr=log)
        while time.monotonic() - began < READY and self.process.poll() is None:
            try:
                connection = http.client.HTTPConnection(ADDRESS, timeout=READY)
                connection.request("GET", "/v2/")
                connection.getresponse().read()
                connection.close()
                return time.monotonic() - began
            except (OSError, http.client.HTTPException):
                time.sleep(0.001)
        sys.exit(f"{self.name} does not start, see {self.work}/{self.name}.log (KEEP=1 keeps it)")

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        try:
            self.process.wait(timeout=READY)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def clear(self):
        """Takes its data away, and lets nothing of it weigh on who comes next."""
        shutil.rmtree(self.data, ignore_errors=True)
        os.sync()

    def cpu(self):
        """Seconds of processor time so far, of all its threads."""
        fields = self._proc("stat").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def memory(self, field):
        """VmRSS (now) or VmHWM (peak) in MiB."""
        return next(int(line.split()[1]) / 1024 for line in self._proc("status").splitlines() if line.startswith(field))

    def forget_peak(self):
        """VmHWM begins anew (proc(5), clear_refs)."""
        with open(f"/proc/{self.process.pid}/clear_refs", "w", encoding="ascii") as refs:
            refs.write("5")

    def written(self):
        """Bytes that it has sent to the disk."""
        return int(next(line.split()[1] for line in self._proc("io").splitlines() if line.startswith("write_bytes")))

    def disk(self):
        """MiB that its data takes on disk, in whole blocks."""
        return int(subprocess.check_output(["du", "-sk", self.data]).split()[0]) / 1024

    def _proc(self, name):
        with open(f"/proc/{self.process.pid}/{name}", encoding="ascii") as file:
            return file.read()


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
    def line(data):
        with open(f"{work}/nginx.conf", "w", encoding="utf-8") as config:
            config.write(f"daemon off; master_process off; user root; pid {work}/nginx.pid; error_log {work}/nginx.log;\n"
                         f"events {{}}\nhttp {{ access_log off; sendfile on; client_body_temp_path {work}/nginx-body;\n"
                         f"server {{ listen {ADDRESS}; root {data}; }} }}\n")
        return [binary, "-c", f"{work}/nginx.conf"]

    return Server("nginx", binary, line, work)
