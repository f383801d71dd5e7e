"""A token server that speaks CNCF Distribution's protocol, for registries with `auth.token`.

A client that was refused asks here, with `service` and any number of `scope`s and a user's name and password or
without, and gets a JWT that says what it may do: whoever is known gets all that was asked for, the nameless get `pull`.
At the start a key is made; whom a registry shall trust is then written beside it, as a JWK set and as a certificate.
Only Python's own library and the openssl command are used.

    token_server.py FOLDER 127.0.0.1:5001 SERVICE USER PASSWORD [CERTIFICATE KEY]

With CERTIFICATE and KEY it listens with TLS. When it listens, FOLDER/jwks.json is there.
"""

import base64
import hashlib
import hmac
import json
import os
import secrets
import ssl
import subprocess
import sys
import time
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

ISSUER = "token server of the outer tests"
LASTS = 300  # seconds; longer than one test, so that a client that never renews shows no fault of its own
EXPONENT = 65537


def openssl(*arguments, given=None):
    return subprocess.run(["openssl", *arguments], input=given, check=True, capture_output=True).stdout


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def compact(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


class Signer:
    """An RSA key; its id is the thumbprint of RFC 7638, which is how a registry that has the certificate names it."""

    def __init__(self, folder):
        self.key = os.path.join(folder, "token.key")
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=tokens",
                "-keyout", self.key, "-out", os.path.join(folder, "token.crt"))
        modulus = openssl("rsa", "-in", self.key, "-noout", "-modulus").decode().strip().split("=", 1)[1]
        public = {"kty": "RSA", "n": base64url(bytes.fromhex(modulus)),
                  "e": base64url(EXPONENT.to_bytes(3, "big"))}
        self.key_id = base64url(hashlib.sha256(compact(public)).digest())
        self.public = public | {"kid": self.key_id, "use": "sig", "alg": "RS256"}

    def token(self, claims):
        header = {"typ": "JWT", "alg": "RS256", "kid": self.key_id}
        signed = base64url(compact(header)) + "." + base64url(compact(claims))
        return signed + "." + base64url(openssl("dgst", "-sha256", "-sign", self.key, given=signed.encode()))


def access(scopes, known):
    """What is granted of `type:name:action,action` scopes; a name may have colons (a port)."""
    granted = []
    for scope in scopes:
        kind, _, rest = scope.partition(":")
        name, _, actions = rest.rpartition(":")
        actions = actions.split(",")
        if not known:
            actions = [action for action in actions if kind == "repository" and action == "pull"]
        if actions:
            granted.append({"type": kind, "name": name, "actions": actions})
    return granted


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        asked = urlsplit(self.path)
        query = parse_qs(asked.query)
        user = self.user()
        if asked.path != "/token":
            self.answer(404, {"details": "only /token is here"})
        elif query.get("service") != [self.server.service]:
            self.answer(400, {"details": f"the service here is {self.server.service}"})
        elif user is None:
            self.answer(401, {"details": "wrong name or password"}, ("WWW-Authenticate", 'Basic realm="tokens"'))
        else:
            scopes = " ".join(query.get("scope", [])).split()
            now = int(time.time())
            token = self.server.signer.token({
                "iss": ISSUER, "sub": user, "aud": self.server.service, "jti": secrets.token_hex(8),
                "iat": now, "nbf": now, "exp": now + LASTS, "access": access(scopes, known=bool(user))})
            issued = datetime.fromtimestamp(now, timezone.utc).isoformat().replace("+00:00", "Z")
            self.answer(200, {"token": token, "access_token": token, "expires_in": LASTS, "issued_at": issued})

    def do_POST(self):  # OAuth 2; the protocol lets a server do without, and clients then ask with GET
        length = self.headers.get("Content-Length")
        self.rfile.read(int(length) if length and length.isdigit() else 0)
        self.answer(405, {"details": "ask with GET"}, ("Allow", "GET"))

    def user(self):
        """The user's name, "" for the nameless, None where the password is wrong."""
        given = self.headers.get("Authorization")
        if given is None:
            return ""
        kind, _, credentials = given.partition(" ")
        due = base64.b64encode(f"{self.server.name}:{self.server.password}".encode()).decode()
        right = kind.lower() == "basic" and hmac.compare_digest(credentials.strip().encode(), due.encode())
        return self.server.name if right else None

    def answer(self, status, body, *headers):
        body = compact(body)
        self.send_response(status)
        for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    daemon_threads = True


def main(folder, address, service, name, password, certificate=None, key=None):
    host, port = address.rsplit(":", 1)
    server = Server((host, int(port)), Handler)
    server.service, server.name, server.password, server.signer = service, name, password, Signer(folder)
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    whole = os.path.join(folder, "jwks.json")
    with open(whole + ".part", "wb") as file:
        file.write(compact({"keys": [server.signer.public]}))
    os.rename(whole + ".part", whole)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
