# SPDX-License-Identifier: Apache-2.0
"""Answers in parts, and how far the kernel has them: what the tests of the splice share."""
import random
import socket
import struct
import time

from lib import need, request, until

PROMPT = {"model": "m", "prompt": "hello"}
RANDOM = random.Random(4)


def noise(n):
    return RANDOM.randbytes(n)


def head(framing, n=0, ctype="application/octet-stream"):
    how = {"length": "Content-Length: %d\r\n" % n, "chunked": "Transfer-Encoding: chunked\r\n", "close": ""}[framing]
    return ("HTTP/1.1 200 OK\r\nContent-Type: %s\r\n%s\r\n" % (ctype, how)).encode()


def chunk(data, ext=b""):
    return b"%x%s\r\n%s\r\n" % (len(data), ext, data)


def slowly(data, size=1, pause=0.0005):
    """Each piece in a segment of its own."""
    def send(c):
        for i in range(0, len(data), size):
            c.send(data[i:i + size])
            time.sleep(pause)
    send.data = data
    return send


def close(c):
    return "close"


def reset(c):
    c.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return "close"


close.data = reset.data = b""


def armed(g, n=1):
    """The kernel waits for the next byte of n answers, or carries them already. Where nothing is spliced, a moment."""
    if g.w.carrier == "relay":
        time.sleep(0.02)
    else:
        until(lambda: len(g.flows("armed", "active")) >= n, "%d answers are armed" % n)


def active(g, n=1):
    until(lambda: len(g.flows("active")) >= n, "%d answers are in the kernel" % n)


def bytes_of(parts):
    return b"".join(p if isinstance(p, bytes) else p.data for p in parts)


def ask(g, c, body=PROMPT, headers=()):
    c.send(request(body, headers=headers))
    a = c.answer(head_only=True)
    return a, a.headers["x-request-id"]


def rest(c, n):
    """The next n bytes."""
    return c.take(n)


def was_spliced(g, rid, n):
    d = g.decision(rid)
    want = ("relay", 0) if g.w.carrier == "relay" else ("tc", n)
    need((d["carrier"], d["spliced_bytes"]) == want, "carrier %s, %d bytes spliced; not %s, %d" % (d["carrier"], d["spliced_bytes"], *want))
    return d
