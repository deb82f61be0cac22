#!/usr/bin/env python3
"""Runs `echo hello` under a capsule supervisor and prints the verdict.

Only the standard library is needed: ttrpc is ten bytes in front of each message,
and the few protobuf fields of two calls are encoded by hand.

    python3 capsule_ttrpc.py /run/capsule/capsuled.sock
"""
import json
import socket
import struct
import sys

SERVICE = "capsule.supervisor.v1.Supervisor"
REQUEST, RESPONSE = 1, 2  # types of frames


def varint(n):
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, value):
    """One field: bytes and str are length-delimited, int and bool varints."""
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        return varint(number << 3 | 2) + varint(len(value)) + value
    return varint(number << 3) + varint(int(value))


def fields(message):
    """All fields of a message: {number: [value, ...]}."""
    found, at = {}, 0

    def number():
        nonlocal at
        n = shift = 0
        while True:
            byte = message[at]
            at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n

    while at < len(message):
        key = number()
        if key & 7 == 0:
            value = number()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or number()
            value, at = message[at:at + size], at + size
        found.setdefault(key >> 3, []).append(value)
    return found


def text(message, number):
    return message.get(number, [b""])[0].decode()


class Fault(Exception):
    """A status that is not OK, with the first Fault among its details."""

    def __init__(self, status):
        status = fields(status)
        self.code, self.message, self.hint = "", text(status, 2), ""
        for detail in status.get(3, []):  # google.protobuf.Any
            fault = fields(fields(detail)[2][0])
            self.code, self.message, self.hint = text(fault, 1), text(fault, 2), text(fault, 4)
            break
        super().__init__(f"{self.code} {self.message} ({self.hint})")


class Supervisor:
    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(address)
        self.stream = -1

    def read(self, size):
        data = b""
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("the connection is lost")
            data += part
        return data

    def call(self, method, payload):
        """One call with one answer, and nothing else meanwhile."""
        self.stream += 2  # odd, and rising
        request = field(1, SERVICE) + field(2, method) + field(3, payload)
        self.socket.sendall(struct.pack(">IIBB", len(request), self.stream, REQUEST, 0) + request)
        length, stream, kind, _ = struct.unpack(">IIBB", self.read(10))
        response = fields(self.read(length))
        assert (stream, kind) == (self.stream, RESPONSE)
        status = response.get(1, [b""])[0]
        if fields(status).get(1, [0])[0] != 0:
            raise Fault(status)
        return fields(response.get(2, [b""])[0])


def main():
    supervisor = Supervisor(sys.argv[1])
    document = json.dumps({"command": ["echo", "hello"], "timeout_ms": 5000})
    started = supervisor.call("Start", field(1, document))  # StartRequest.request
    execution = text(fields(started[1][0]), 1)  # StartResponse.execution.execution_id
    print("started", execution)
    answer = supervisor.call("Wait", field(1, execution))  # WaitRequest.execution_id
    response = json.loads(answer[1][0])  # WaitResponse.response
    print(response["status"], response["termination"]["reason"], response["exit_code"], repr(response["stdout"]))
    try:
        supervisor.call("Wait", field(1, "00000000-0000-4000-8000-000000000000"))
    except Fault as fault:
        print("as expected:", fault.code, fault.message)


if __name__ == "__main__":
    main()
