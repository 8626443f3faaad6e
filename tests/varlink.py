"""A Varlink client of its own, so that what the daemon says is read by nobody who shares its code."""

from __future__ import annotations

import json
import socket
from pathlib import Path

INTERFACE = "org.guardd.Control"
LONGEST_CALL_SECONDS = 180


class Refused(Exception):
    """An error reply."""

    def __init__(self, error: str, parameters: dict):
        super().__init__(f"{error} {json.dumps(parameters)}")
        self.error = error.removeprefix(f"{INTERFACE}.")
        self.parameters = parameters


def call(path: Path, method: str, **parameters) -> dict:
    """The last reply to a call. `OSError` where the daemon is not there, or ends before it answers."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LONGEST_CALL_SECONDS)
        connection.connect(str(path))
        connection.sendall(json.dumps({"method": f"{INTERFACE}.{method}", "parameters": parameters}).encode() + b"\0")
        text = b""
        while not text.endswith(b"\0"):
            piece = connection.recv(1 << 16)
            if not piece:
                raise ConnectionResetError(f"no answer to {method}")
            text += piece
    reply = json.loads(text[:-1])
    if "error" in reply:
        raise Refused(reply["error"], reply.get("parameters", {}))
    return reply["parameters"]
