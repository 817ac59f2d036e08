#!/usr/bin/python3
"""The server that a bootstrap script starts inside the job.

It takes the command lines of the servers that it stands in for (exec server, node server, Cursor's second
one), binds the host that these lines name and no other, and says where it listens in their words.

A connection's first line says what it is for:

    GET PATH HTTP/1.1    an HTTP answer that names the node and the job
    ECHO                 every byte comes back; after the client's half-close its SHA-256 follows
    SINK                 nothing comes back until the client's half-close, then count and SHA-256
    SOURCE N             N bytes, their SHA-256, the server's half-close
    EARLY NAME           the server half-closes at once and goes on reading to the client's end of file
    ASK NAME             what EARLY NAME had read: count and SHA-256
"""
import hashlib
import os
import random
import signal
import socket
import sys
import threading

BLOCK = 65536
early = {}
early_done = threading.Condition()


def option(name, default=None):
    """The value of --NAME VALUE or --NAME=VALUE."""
    for at, word in enumerate(sys.argv):
        if word.startswith(f"--{name}="):
            return word.split("=", 1)[1]
        if word == f"--{name}" and at + 1 < len(sys.argv) and not sys.argv[at + 1].startswith("--"):
            return sys.argv[at + 1]
    return default


def first_line(peer):
    """The line up to its newline, a byte at a time: what follows is the connection's own business."""
    line = b""
    while not line.endswith(b"\n") and len(line) < 4096:
        byte = peer.recv(1)
        if not byte:
            break
        line += byte
    return line.decode("latin-1").strip()


def read_all(peer):
    count, digest = 0, hashlib.sha256()
    while block := peer.recv(BLOCK):
        count += len(block)
        digest.update(block)
    return f"{count} {digest.hexdigest()}"


def serve(peer):
    with peer:
        words = first_line(peer).split()
        match words:
            case ["GET", path, *_]:
                while first_line(peer):
                    pass
                body = f"node={os.uname().nodename} job={os.environ.get('SLURM_JOB_ID', '')} path={path}\n"
                peer.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
            case ["ECHO"]:
                digest = hashlib.sha256()
                while block := peer.recv(BLOCK):
                    digest.update(block)
                    peer.sendall(block)
                peer.sendall(digest.hexdigest().encode())
            case ["SINK"]:
                peer.sendall(read_all(peer).encode())
            case ["SOURCE", count]:
                left, digest, bytes_of = int(count), hashlib.sha256(), random.Random(count)
                while left:
                    block = bytes_of.randbytes(min(left, BLOCK))
                    digest.update(block)
                    peer.sendall(block)
                    left -= len(block)
                peer.sendall(digest.hexdigest().encode())
                peer.shutdown(socket.SHUT_WR)
                read_all(peer)
            case ["EARLY", name]:
                peer.shutdown(socket.SHUT_WR)
                read = read_all(peer)
                with early_done:
                    early[name] = read
                    early_done.notify_all()
            case ["ASK", name]:
                with early_done:
                    early_done.wait_for(lambda: name in early, timeout=20)
                    answer = early.get(name, "never")
                peer.sendall(answer.encode())
            case _:
                peer.sendall(b"what?\n")


def main():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as servers do that are to outlive a terminal
    exec_server = "command-shell" in sys.argv
    host = option("on-host" if exec_server else "host", "127.0.0.1")
    listener = socket.create_server((host, int(option("port", "0"))), backlog=1024)
    port = listener.getsockname()[1]
    print(f"Listening on {host}:{port}" if exec_server else f"Extension host agent listening on {port}", flush=True)
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=serve_quietly, args=(peer,), daemon=True).start()


def serve_quietly(peer):
    try:
        serve(peer)
    except OSError as error:
        print(f"connection lost: {error}", flush=True)


main()
