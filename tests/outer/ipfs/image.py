"""Images for the tests with IPFS peers, byte by byte as they are wanted.

  image.py tree DIR REPOSITORY TAG FILE...        a tree in CNCF Distribution's layout with these files as layers
  image.py push ADDRESS REPOSITORY TAG FILE...    the same image, pushed
  image.py pull ADDRESS REPOSITORY TAG DIGEST     fails unless every byte comes and is right
  image.py tags ADDRESS REPOSITORY TAG BYTES      tags the image until the block of the directory of tags has this size

Both `tree` and `push` print the digest of the manifest, `tags` the last tag.
"""

import hashlib
import os
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
import oci

# A link of a directory around its name: field and length, a CID of 36 bytes, the name's own, and a Tsize of two bytes.
AROUND_NAME = 3 + 38 + 2 + 3
NAME = 110
LONGEST = 127


def write(path, data):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)


def image(files):
    layers = []
    for name in files:
        with open(name, "rb") as file:
            layers.append(file.read())
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"config":{}}'
    body = oci.manifest((oci.digest(config), len(config)), [(oci.digest(layer), len(layer)) for layer in layers])
    return config, layers, body


def tree(root, repository, tag, *files):
    config, layers, body = image(files)
    base = f"{root}/docker/registry/v2"
    held = f"{base}/repositories/{repository}"
    for data in [config, *layers, body]:
        hexadecimal = oci.digest(data).split(":")[1]
        write(f"{base}/blobs/sha256/{hexadecimal[:2]}/{hexadecimal}/data", data)
        if data is not body:
            write(f"{held}/_layers/sha256/{hexadecimal}/link", oci.digest(data).encode())
    name = oci.digest(body)
    hexadecimal = name.split(":")[1]
    write(f"{held}/_manifests/revisions/sha256/{hexadecimal}/link", name.encode())
    write(f"{held}/_manifests/tags/{tag}/current/link", name.encode())
    write(f"{held}/_manifests/tags/{tag}/index/sha256/{hexadecimal}/link", name.encode())
    print(name)


def push(address, repository, tag, *files):
    config, layers, body = image(files)
    registry = oci.Registry(address, timeout=120)
    for data in [config, *layers]:
        registry.push_blob(repository, data)
    print(registry.push_manifest(repository, tag, body))


def pull(address, repository, tag, due):
    registry = oci.Registry(address, timeout=120)
    body = registry.request("GET", f"/v2/{repository}/manifests/{tag}", due=200, Accept=oci.MANIFEST).body
    if oci.digest(body) != due:
        sys.exit(f"{tag} is {oci.digest(body)}, due was {due}")
    for name in oci.blobs_of(body):
        with urllib.request.urlopen(f"http://{address}/v2/{repository}/blobs/{name}", timeout=120) as answer:
            actual = hashlib.sha256()
            while part := answer.read(1 << 20):
                actual.update(part)
        if f"sha256:{actual.hexdigest()}" != name:
            sys.exit(f"{name} has other bytes")


def tags(address, repository, tag, size):
    registry = oci.Registry(address)
    body = registry.manifest(repository, tag).body
    left = int(size) - 4 - (AROUND_NAME - 1 + len(tag))
    count = left // (AROUND_NAME + NAME)
    more = left - count * (AROUND_NAME + NAME)
    for number in range(count):
        length = NAME + min(more, LONGEST - NAME)
        more -= length - NAME
        tag = f"t{number}".ljust(length, "x")
        registry.push_manifest(repository, tag, body)
    print(tag)


if __name__ == "__main__":
    {"tree": tree, "push": push, "pull": pull, "tags": tags}[sys.argv[1]](*sys.argv[2:])
