"""A small disk, and something else that fills it."""

import errno
import os
import subprocess
import threading
import time

BLOCK = 4096
LARGEST = 64 << 20  # bytes that are asked for at once
PAUSE = 0.005       # seconds between two looks of a filler that goes on


class Disk:
    """Ext4 on a loop device, without the blocks that only root may use."""

    def __init__(self, image, mount_point, mebibytes):
        self.image, self.mount_point, self.mebibytes = image, mount_point, mebibytes
        os.makedirs(mount_point, exist_ok=True)

    def __enter__(self):
        subprocess.run(["truncate", "--size", f"{self.mebibytes}M", self.image], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.mount_point], check=True)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", self.mount_point], check=True)
        os.remove(self.image)

    def free(self):
        space = os.statvfs(self.mount_point)
        return space.f_bavail * space.f_frsize


class Filler(threading.Thread):
    """Takes all but `left` bytes of a disk: once, or again and again what becomes free."""

    def __init__(self, disk, left, greedy):
        super().__init__(daemon=True)
        self.disk, self.left, self.greedy = disk, left, greedy
        self.path, self.taken = f"{disk.mount_point}/outside", 0
        self.full, self.ended = threading.Event(), threading.Event()

    def run(self):
        with open(self.path, "wb") as file:
            self.take(file)
            self.full.set()
            while self.greedy and not self.ended.wait(PAUSE):
                self.take(file)

    def take(self, file):
        size = LARGEST
        while size >= BLOCK:
            size = min(size, (self.disk.free() - self.left) // BLOCK * BLOCK)
            try:
                if size > 0:
                    os.posix_fallocate(file.fileno(), self.taken, size)
                    self.taken += size
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2

    def stop(self):
        """Gives back what was taken."""
        self.ended.set()
        self.join()
        os.remove(self.path)
