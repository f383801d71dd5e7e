"""A proxy in front of a registry that cuts the connection in the middle of a layer, once for each blob and repository.

    cutting_proxy.py 127.0.0.1:5009 127.0.0.1:5000

It prints a line when it cuts, `cut PATH at N`, and one for each request of a range that follows, `resumed PATH from N`;
that is how a test knows that a client went on where it was and did not begin again.
"""

import http.client
import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BIG = 1 << 20  # a blob of this size is a layer, and worth a cut
PIECE = 64 << 10
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
BLOB = re.compile(r"/v2/.+/blobs/\w+:\w+$")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        registry = http.client.HTTPConnection(self.server.registry, timeout=30)
        try:
            registry.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP:
                    registry.putheader(name, value)
            registry.endheaders()
            self.forward(registry.getresponse())
        finally:
            registry.close()

    do_HEAD = do_GET

    def forward(self, response):
        length = int(response.headers.get("Content-Length", 0))
        start = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if start and int(start[1]) and response.status == 206 and BLOB.match(self.path):
            self.say("resumed", self.path, "from", start[1])
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        left = length
        if length > BIG and not start and self.first():
            left = length // 2
            self.say("cut", self.path, "at", left)
            self.close_connection = True
        while left and (piece := response.read(min(PIECE, left))):
            self.wfile.write(piece)
            left -= len(piece)

    def first(self):
        with self.server.lock:
            return BLOB.match(self.path) and not (self.path in self.server.cut or self.server.cut.add(self.path))

    def say(self, *words):
        print(*words, flush=True)

    def log_message(self, *_):
        pass


class Proxy(ThreadingHTTPServer):
    daemon_threads = True


if __name__ == "__main__":
    host, port = sys.argv[1].rsplit(":", 1)
    proxy = Proxy((host, int(port)), Handler)
    proxy.registry, proxy.lock, proxy.cut = sys.argv[2], threading.Lock(), set()
    proxy.serve_forever()
