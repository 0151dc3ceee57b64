# SPDX-License-Identifier: GPL-2.0-or-later
"""As much of gdb's remote protocol as tests need: what gdb says to QEMU's stub."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from types import TracebackType
from typing import Optional

__all__ = ["GdbRemote", "Registers"]

# The order of the stub's 'g' packet for x86-64.
_NAMES = ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)), "rip"]

Registers = dict[str, int]


class GdbRemote:
    """A connection to the stub. The machine stops when it is made.

    Args:
        path: the stub's socket.
        timeout: seconds to wait for an answer, also for the machine to stop.
    """

    def __init__(self, path: Path, timeout: float = 30.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        self._received = b""

    def __enter__(self) -> GdbRemote:
        return self

    def __exit__(
        self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._socket.close()

    def _byte(self) -> bytes:
        if not self._received:
            self._received = self._socket.recv(4096)
            if not self._received:
                raise ConnectionError("the stub has closed the connection")
        first, self._received = self._received[:1], self._received[1:]
        return first

    def _packet(self) -> str:
        while self._byte() != b"$":
            pass
        content = b""
        while (byte := self._byte()) != b"#":
            content += byte
        checksum = int(self._byte() + self._byte(), 16)
        assert checksum == sum(content) % 256, content
        self._socket.sendall(b"+")
        return content.decode("ascii")

    def send(self, command: str) -> None:
        """Send a packet, whose answer comes with `receive()`."""
        content = command.encode("ascii")
        self._socket.sendall(b"$%s#%02x" % (content, sum(content) % 256))

    def ask(self, command: str) -> str:
        """Send a packet and return the answer."""
        self.send(command)
        return self._packet()

    def must(self, command: str) -> None:
        """Send a packet whose answer is OK."""
        assert self.ask(command) == "OK", command

    def threads(self) -> list[int]:
        """All threads, which are CPUs."""
        found: list[int] = []
        answer = self.ask("qfThreadInfo")
        while answer != "l":
            assert answer.startswith("m"), answer
            found += [int(number, 16) for number in answer[1:].split(",")]
            answer = self.ask("qsThreadInfo")
        return found

    def select(self, thread: int) -> None:
        """Have the other commands mean this thread."""
        self.must(f"Hg{thread:x}")

    def registers(self, thread: int) -> Registers:
        """Return the general registers of a thread."""
        self.select(thread)
        data = bytes.fromhex(self.ask("g")[: 16 * len(_NAMES)])
        return dict(zip(_NAMES, struct.unpack(f"<{len(_NAMES)}Q", data)))

    def read(self, thread: int, address: int, size: int) -> bytes:
        """Return memory as the thread sees it."""
        self.select(thread)
        answer = self.ask(f"m{address:x},{size:x}")
        assert not answer.startswith("E"), answer
        return bytes.fromhex(answer)

    def write(self, thread: int, address: int, data: bytes) -> None:
        """Write to memory as the thread sees it."""
        self.select(thread)
        self.must(f"M{address:x},{len(data):x}:{data.hex()}")

    def insert_breakpoint(self, thread: int, address: int) -> None:
        """Stop where this thread, and those that run the same guest, come to the address."""
        self.select(thread)
        self.must(f"Z0,{address:x},1")

    def remove_breakpoint(self, thread: int, address: int) -> None:
        """Undo `insert_breakpoint()`."""
        self.select(thread)
        self.must(f"z0,{address:x},1")

    def _stopped(self) -> int:
        """Wait for the machine to stop; return the thread that it was for."""
        answer = self._packet()
        assert answer.startswith("T05"), answer
        fields = dict(field.split(":") for field in answer[3:].rstrip(";").split(";"))
        return int(fields["thread"], 16)

    def step(self, thread: int) -> int:
        """Let one thread execute an instruction, while the others stand still. Returns the thread that stopped."""
        self.send(f"vCont;s:{thread:x}")
        return self._stopped()

    def resume(self) -> None:
        """Let all threads go on."""
        self.send("vCont;c")

    def wait(self) -> int:
        """Return the thread with a breakpoint that has stopped the machine."""
        return self._stopped()

    def interrupt(self) -> None:
        """Stop the machine."""
        self._socket.sendall(b"\x03")
        answer = self._packet()
        assert answer.startswith("T02"), answer
