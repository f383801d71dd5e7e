"""Writes a bundle again with a record that expired a month ago, signed with the key of its name.

  expire.py KEY.pem BUNDLE NEW

Root and sequence stay. The record has a V2 signature only, which is all that counts (IPNS record specification).
"""

import base64
import datetime
import hashlib
import json
import struct
import subprocess
import sys
import tempfile

RAW = b"\x01\x55\x12\x20"


def varint(number):
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def read_varint(file):
    number, shift = 0, 0
    while byte := file.read(1):
        number |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80:
            return number
    return None


def head(major, value):
    if value < 24:
        return bytes([major << 5 | value])
    # The shortest form, as DAG-CBOR has it.
    info, form = next((info, form) for info, form in ((24, ">B"), (25, ">H"), (26, ">I"), (27, ">Q")) if value < 256 ** struct.calcsize(form))
    return bytes([major << 5 | info]) + struct.pack(form, value)


def text(value):
    return head(3, len(value)) + value.encode()


def data(value):
    return head(2, len(value)) + value


def text_of(cid):
    return "b" + base64.b32encode(cid).decode().lower().rstrip("=")


def bytes_of(text):
    return base64.b32decode(text[1:].upper() + "=" * (-(len(text) - 1) % 8))


def sign(key, message):
    with tempfile.NamedTemporaryFile() as file:
        file.write(message)
        file.flush()
        command = ["openssl", "pkeyutl", "-sign", "-rawin", "-inkey", key, "-in", file.name]
        return subprocess.run(command, check=True, capture_output=True).stdout


def record(key, root, sequence):
    end = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=31)
    validity = end.strftime("%Y-%m-%dT%H:%M:%S.000000000Z").encode()
    signed = head(5, 5)
    signed += text("TTL") + head(0, 60 * 10**9)
    signed += text("Value") + data(f"/ipfs/{root}".encode())
    signed += text("Sequence") + head(0, sequence)
    signed += text("Validity") + data(validity)
    signed += text("ValidityType") + head(0, 0)
    signature = sign(key, b"ipns-signature:" + signed)
    # Fields 8 and 9 of the protobuf.
    return b"\x42" + varint(len(signature)) + signature + b"\x4a" + varint(len(signed)) + signed


def section(block):
    cid = RAW + hashlib.sha256(block).digest()
    return varint(len(cid) + len(block)) + cid + block


def main():
    key, old, new = sys.argv[1:]
    with open(old, "rb") as source, open(new, "wb") as out:
        header = source.read(read_varint(source))
        description = json.loads(source.read(read_varint(source))[len(RAW) + 32 :])
        source.read(read_varint(source))
        was = bytes_of(description["record"])
        fresh = record(key, description["root"], description["sequence"])
        cid = RAW + hashlib.sha256(fresh).digest()
        description["record"] = text_of(cid)
        header = header.replace(was, cid)
        out.write(varint(len(header)) + header)
        out.write(section(json.dumps(description).encode()))
        out.write(section(fresh))
        while piece := source.read(1024 * 1024):
            out.write(piece)


main()
