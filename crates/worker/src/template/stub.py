"""A template that does what a test tells it: `stub.py MANIFEST STEP... --socket PATH`.

MANIFEST is a file with a manifest's message but for its secret. Each step is a word, with what it needs after a colon.
"""

import os
import signal
import socket
import struct
import sys

HEADER = struct.Struct("<2sBBHHQIQ")
MANIFEST, FORKED, PING = 22, 24, 11
TOKEN = os.environ.pop("ANYSERVE_WORKER_TOKEN")


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def text(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def frame(kind, meta=b""):
    return HEADER.pack(b"AS", 4, kind, 0, 0, 0, len(meta), 0) + meta


def manifest(token):
    with open(sys.argv[1], "rb") as file:
        return frame(MANIFEST, file.read() + text(2, token.encode()))


def connect():
    line = socket.socket(socket.AF_UNIX)
    line.connect(sys.argv[-1])
    return line


def read(count):
    data = b""
    while len(data) < count:
        part = line.recv(count - len(data))
        if not part:
            sys.exit(0)
        data += part
    return data


def fields(meta):
    """Every field of a flat message by its number."""
    found, at = {}, 0

    def number():
        nonlocal at
        value, shift = 0, 0
        while True:
            byte = meta[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(meta):
        tag = number()
        value = number()
        if tag & 7 == 2:
            value, at = meta[at : at + value], at + value
        found[tag >> 3] = value
    return found


def order():
    header = HEADER.unpack(read(HEADER.size))
    return fields(read(header[6]))


def forked(worker, pid=0, failed=b""):
    meta = varint(1 << 3) + varint(worker) + varint(2 << 3) + varint(pid)
    line.sendall(frame(FORKED, meta + (text(3, failed) if failed else b"")))


def fork(order, leader=True):
    """The worker's process, reparented: the one between the two is gone."""
    read_end, write_end = os.pipe()
    between = os.fork()
    if between == 0:
        if os.fork() == 0:
            work(order, write_end, leader)
        os._exit(0)
    os.close(write_end)
    pid = int(os.read(read_end, 20))
    os.close(read_end)
    os.waitpid(between, 0)
    return pid


def work(order, write_end, leader):
    if leader:
        os.setpgid(0, 0)
    line.close()
    os.dup2(os.open(order[5], os.O_WRONLY), 1)
    os.dup2(os.open(order[6], os.O_WRONLY), 2)
    os.write(write_end, str(os.getpid()).encode())
    os.close(write_end)
    print("group", order[2].decode(), flush=True)
    print("socket", order[3].decode(), file=sys.stderr, flush=True)
    group = order[2].decode()
    if group.startswith("exit:"):
        os._exit(int(group[5:]))
    if group == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def step(word, value):
    global line
    if word == "connect":
        line = connect()
    elif word == "manifest":
        line.sendall(manifest(TOKEN))
    elif word == "stranger":
        connect().sendall(manifest("guess"))
    elif word == "bytes":
        line.sendall(bytes.fromhex(value))
    elif word == "huge":
        line.sendall(HEADER.pack(b"AS", 4, MANIFEST, 0, 0, 0, int(value), 0))
    elif word == "ping":
        line.sendall(frame(PING))
    elif word == "order":
        order()
    elif word == "fork":
        wanted = order()
        forked(wanted[1], fork(wanted))
    elif word == "follower":
        wanted = order()
        forked(wanted[1], fork(wanted, leader=False))
    elif word == "refuse":
        forked(order()[1], failed=value.encode())
    elif word == "name":
        forked(order()[1], int(value))
    elif word == "another":
        wanted = order()
        forked(wanted[1] + 1, fork(wanted))
    elif word == "twice":
        wanted = order()
        forked(wanted[1], step.last)
    elif word == "remember":
        wanted = order()
        step.last = fork(wanted)
        forked(wanted[1], step.last)
    elif word == "gate":
        with open(value) as gate:
            gate.read()
    elif word == "close":
        line.close()
    elif word == "hang":
        signal.pause()
    elif word == "exit":
        sys.exit(int(value))
    else:
        raise ValueError(word)


for one in sys.argv[2:-2]:
    step(*(one.split(":", 1) if ":" in one else (one, "")))
