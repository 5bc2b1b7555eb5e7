"""A cable between two network namespaces with an interface each, which can be slow, or cut.

A process that holds the far ends of both interfaces (TAP) carries frames from one to the other.
Lines on its standard input change it: ``0.05`` delays each frame by so many seconds, ``cut`` drops
all.
"""

import contextlib
import fcntl
import os
import selectors
import struct
import subprocess
import sys
import time
from collections import deque
from itertools import count

TUNSETIFF, TAP, NO_HEADER = 0x400454CA, 0x0002, 0x1000


def tap(name):
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH", name.encode(), TAP | NO_HEADER))
    return end


def carry(names):
    ends = [tap(name) for name in names]
    print("connected", flush=True)
    delay, cut, travelling, order = 0.0, False, deque(), count()
    with selectors.DefaultSelector() as ready:
        for end in [*ends, sys.stdin]:
            ready.register(end, selectors.EVENT_READ)
        while True:
            wait = max(travelling[0][0] - time.monotonic(), 0) if travelling else None
            for key, _ in ready.select(wait):
                if key.fileobj is sys.stdin:
                    if not (said := sys.stdin.readline()):
                        return
                    cut, delay = said == "cut\n", 0.0 if said == "cut\n" else float(said)
                    continue
                with contextlib.suppress(BlockingIOError):
                    while frame := os.read(key.fd, 65536):
                        if not cut:
                            travelling.append(
                                (
                                    time.monotonic() + delay,
                                    next(order),
                                    ends[ends[0] == key.fd],
                                    frame,
                                )
                            )
            while travelling and travelling[0][0] <= time.monotonic():
                _, _, end, frame = travelling.popleft()
                with contextlib.suppress(OSError):
                    os.write(end, frame)


class Wire:
    """The cable, and the two hosts at its ends.

    Args:
        addresses: of the hosts, whose last numbers name their namespaces.
    """

    def __init__(self, *addresses):
        self.hosts = {f"sadcl{address.rpartition('.')[2]}": address for address in addresses}
        for host in self.hosts:
            call("ip", "netns", "add", host)
        words = [sys.executable, __file__, *(f"tap{host}" for host in self.hosts)]
        self.process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "connected\n"
        for host, address in self.hosts.items():
            inside = ["ip", "-n", host]
            call("ip", "link", "set", f"tap{host}", "netns", host, "name", "eth0")
            call(*inside, "addr", "add", f"{address}/24", "dev", "eth0")
            call(*inside, "link", "set", "eth0", "up")
            call(*inside, "link", "set", "lo", "up")

    def be(self, what):
        print(what, file=self.process.stdin, flush=True)

    def ping(self):
        """Milliseconds there and back."""
        one, other = self.hosts
        words = [sys.executable, "-c", PING, self.hosts[other]]
        server = subprocess.Popen(
            ["ip", "netns", "exec", other, *words, "serve"], stdout=subprocess.PIPE, text=True
        )
        server.stdout.readline()
        said = subprocess.run(
            ["ip", "netns", "exec", one, *words], capture_output=True, text=True, check=True
        ).stdout
        server.wait(10)
        return float(said)

    def remove(self):
        self.process.stdin.close()
        self.process.wait(10)
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host], check=False)


PING = """
import socket, sys, time
if sys.argv[2:]:
    server = socket.create_server((sys.argv[1], 5000))
    print("serves", flush=True)
    talk = server.accept()[0]
    talk.sendall(talk.recv(1))
else:
    talk = socket.create_connection((sys.argv[1], 5000))
    began = time.monotonic()
    talk.sendall(b"1"), talk.recv(1)
    print((time.monotonic() - began) * 1000)
"""


def call(*words):
    subprocess.run(list(map(str, words)), check=True, capture_output=True)


if __name__ == "__main__":
    carry(sys.argv[1:])
