"""Connections through `ssh -D`: SOCKS 5 without authentication, by address."""
import hashlib
import random
import socket
import struct

from box import Failed, check

BLOCK = 65536


def exactly(peer, count):
    got = b""
    while len(got) < count:
        block = peer.recv(count - len(got))
        if not block:
            raise Failed(f"SOCKS answer ended after {len(got)} of {count} bytes")
        got += block
    return got


def connect(proxy_port, port, host="127.0.0.1", limit=20):
    """A connection as the client's: to the login node's own loopback.  ConnectionRefusedError where the login
    node could not connect."""
    peer = socket.create_connection(("127.0.0.1", proxy_port), timeout=limit)
    try:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(b"\5\1\0" + b"\5\1\0\1" + socket.inet_aton(host) + struct.pack("!H", port))
        check(exactly(peer, 2) == b"\5\0", "SOCKS: no method")
        # sshd could not connect: ssh closes, often without the answer that SOCKS has for it.
        answer = peer.recv(1, socket.MSG_PEEK) and exactly(peer, 10)
        if not answer or answer[1] != 0:
            raise ConnectionRefusedError(f"the login node's sshd could not connect to {host}:{port}")
        return peer
    except BaseException:
        peer.close()
        raise


def rest(peer):
    """Everything to the end of file."""
    blocks = []
    while block := peer.recv(BLOCK):
        blocks.append(block)
    return b"".join(blocks)


def all_of(session, port):
    """Everything that a new connection brings where it is expected to be closed, at whatever point of its opening."""
    try:
        with session.connect(port) as peer:
            return rest(peer)
    except (ConnectionRefusedError, ConnectionResetError):
        return b""


def http(peer, path="/"):
    """The body of a GET."""
    with peer:
        peer.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        head, _, body = rest(peer).decode().partition("\r\n\r\n")
    check(head.startswith("HTTP/1.1 200"), f"HTTP answer is {head!r} {body!r}")
    return body


def echo(peer, size, seed):
    """`size` bytes there and back at the same time, half-close, checksum."""
    peer.sendall(b"ECHO\n")
    echo_on(peer, size, seed)


def echo_on(peer, size, seed, before=b""):
    """The same on a connection that echoes already; `before` is what was echoed there."""
    data = random.Random(seed).randbytes(size)
    with peer:
        got, sent = bytearray(), 0
        # A window that no buffer on the way can hold up: write a block, read what came.
        while sent < size:
            sent += peer.send(data[sent : sent + BLOCK])
            while len(got) < sent - BLOCK:
                block = peer.recv(BLOCK)
                check(block, f"echo ended after {len(got)} of {size} bytes")
                got += block
        peer.shutdown(socket.SHUT_WR)
        got += rest(peer)
    same = next((at for at, (a, b) in enumerate(zip(got, data)) if a != b), min(len(got), size))
    check(same == size, f"the echo of {size} bytes is right up to {same}; {len(got)} bytes came, then {bytes(got[same:same + 80])!r}")
    sum_of = hashlib.sha256(before + data).hexdigest()
    check(got[size:].decode() == sum_of, f"the server's checksum differs, or its half-close came early: {bytes(got[size:])!r}")


def sink(peer, size, seed):
    """`size` bytes there, half-close, and only then the answer."""
    data = random.Random(seed).randbytes(size)
    with peer:
        peer.sendall(b"SINK\n" + data)
        peer.shutdown(socket.SHUT_WR)
        answer = rest(peer).decode()
    want = f"{size} {hashlib.sha256(data).hexdigest()}"
    check(answer == want, f"after a half-close: {answer!r}, not {want!r}")


def source(peer, size):
    """`size` bytes back with their checksum."""
    with peer:
        peer.sendall(f"SOURCE {size}\n".encode())
        got = rest(peer)
    check(len(got) == size + 64, f"{len(got)} bytes came, not {size} and a checksum")
    check(got[size:].decode() == hashlib.sha256(got[:size]).hexdigest(), "the checksum from the server differs")


def early(connector, size, name):
    """The server half-closes first; what the client sends after that still arrives."""
    data = random.Random(name).randbytes(size)
    with connector() as peer:
        peer.sendall(f"EARLY {name}\n".encode())
        check(rest(peer) == b"", "bytes before the server's half-close")
        peer.sendall(data)
    with connector() as peer:
        peer.sendall(f"ASK {name}\n".encode())
        answer = rest(peer).decode()
    want = f"{size} {hashlib.sha256(data).hexdigest()}"
    check(answer == want, f"sent after the server's half-close: {answer!r} arrived, not {want!r}")
