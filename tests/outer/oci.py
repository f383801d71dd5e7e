"""A registry client for the outer tests: one connection, one request at a time, no retries, nothing hidden."""

import hashlib
import http.client
import json
from collections import namedtuple

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

Answer = namedtuple("Answer", "status headers body")


class Refused(Exception):
    """The registry gave another status than the one that was due."""


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def manifest(config, layers, **annotations):
    """The bytes of an image manifest; config and layers are (digest, size)."""
    body = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config[0], "size": config[1]},
        "layers": [{"mediaType": LAYER, "digest": name, "size": size} for name, size in layers],
    }
    if annotations:
        body["annotations"] = annotations
    return json.dumps(body, separators=(",", ":")).encode()


def blobs_of(body):
    """The digests of what a manifest names."""
    image = json.loads(body)
    return [named["digest"] for named in [image["config"], *image["layers"]]]


class Registry:
    def __init__(self, address, timeout=30):
        host, port = address.rsplit(":", 1)
        self.connection = http.client.HTTPConnection(host, int(port), timeout=timeout)

    def close(self):
        self.connection.close()

    def request(self, method, path, body=None, due=None, **headers):
        """One request. With `due`, any other status is an error. Header names are written with underscores."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            cut = False
            try:
                self.connection.request(method, path, body=body, headers=headers)
            except (BrokenPipeError, ConnectionResetError):
                # The answer may have come before the end of the body, and the connection was closed after it.
                cut = True
            response = self.connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
            if cut:
                self.connection.close()
        except (OSError, http.client.HTTPException):
            self.connection.close()
            raise
        if due is not None and answer.status != due:
            raise Refused(f"{method} {path}: {answer.status}, due was {due}: {answer.body[:300]!r}")
        return answer

    def begin(self, repository):
        """Opens an upload; returns its location with a query begun, ready for `digest=`."""
        return self._location(self.request("POST", f"/v2/{repository}/blobs/uploads/", due=202))

    def push_blob(self, repository, data):
        name = digest(data)
        self.request("PUT", f"{self.begin(repository)}digest={name}", data, due=201,
                     Content_Type="application/octet-stream")
        return name, len(data)

    def push_blob_chunked(self, repository, data, chunk):
        location, name = self.begin(repository), digest(data)
        for start in range(0, len(data), chunk):
            part = data[start:start + chunk]
            location = self._location(self.request(
                "PATCH", location.rstrip("?&"), part, due=202, Content_Type="application/octet-stream",
                Content_Range=f"{start}-{start + len(part) - 1}"))
        self.request("PUT", f"{location}digest={name}", due=201)
        return name, len(data)

    def mount(self, repository, name, source):
        """Links a blob of another repository; false where the registry begins an upload instead."""
        answer = self.request("POST", f"/v2/{repository}/blobs/uploads/?mount={name}&from={source}")
        if answer.status not in (201, 202):
            raise Refused(f"mount of {name} from {source}: {answer.status}: {answer.body[:300]!r}")
        return answer.status == 201

    def push_manifest(self, repository, reference, body):
        self.request("PUT", f"/v2/{repository}/manifests/{reference}", body, due=201, Content_Type=MANIFEST)
        return digest(body)

    def manifest(self, repository, reference, method="GET"):
        return self.request(method, f"/v2/{repository}/manifests/{reference}", Accept=MANIFEST)

    def blob(self, repository, name, method="GET"):
        return self.request(method, f"/v2/{repository}/blobs/{name}")

    @staticmethod
    def _location(answer):
        location = answer.headers["Location"]
        if "://" in location:
            location = "/" + location.split("://", 1)[1].split("/", 1)[1]
        return location + ("&" if "?" in location else "?")
