"""The kernel's audit, asked and changed without any program of others (linux/audit.h)."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator

GET, SET, DEL_RULE, LIST_RULES = 1000, 1001, 1012, 1013
ERROR, DONE = 2, 3
REQUEST, ACK = 1, 4
ENABLED = 1
"""AUDIT_STATUS_ENABLED."""


def ask(kind: int, body: bytes = b"") -> list[tuple[int, bytes]]:
    """What the kernel answers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 9) as asked:
        asked.settimeout(5)
        asked.bind((0, 0))
        asked.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST | ACK, 1, 0) + body)
        answers: list[tuple[int, bytes]] = []
        acknowledged, answered = False, kind not in (GET, LIST_RULES)
        while not (acknowledged and answered):
            message = asked.recv(1 << 16)
            _, told, _, _, _ = struct.unpack_from("=IHHII", message)
            if told == ERROR:
                if error := struct.unpack_from("=i", message, 16)[0]:
                    raise OSError(-error, os.strerror(-error))
                acknowledged = True
            elif told == DONE:
                answered = True
            else:
                answered |= told == GET
                answers.append((told, message[16:]))
    return answers


def enabled() -> int:
    status = next(body for kind, body in ask(GET) if kind == GET)
    return struct.unpack_from("=II", status)[1]


def enable(value: int) -> None:
    ask(SET, struct.pack("=10I", ENABLED, value, *[0] * 8))


def rules() -> list[bytes]:
    """Those that are guardd's."""
    return [body for kind, body in ask(LIST_RULES) if kind == LIST_RULES and b"guardd-" in body]


def delete(rule: bytes) -> None:
    ask(DEL_RULE, rule)


def why_not() -> str | None:
    """Why audit cannot be had here; `None` where it can."""
    try:
        if enabled() == 2:
            return "the rules of audit cannot be changed until the next boot"
    except OSError as error:
        return f"no audit: {error}"
    return None


@contextlib.contextmanager
def switched_on() -> Iterator[None]:
    """For the whole machine: as before afterwards, whatever happens, and nothing of guardd's left."""
    before = enabled()
    others = rules()
    enable(1)
    try:
        yield
    finally:
        for rule in rules():
            if rule not in others:
                delete(rule)
        enable(before)
