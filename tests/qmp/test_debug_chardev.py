# SPDX-License-Identifier: GPL-2.0-or-later
"""A debugger at a character device talks to a guest by the hypervisor (TLFS chapter 20)."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from guest_image import build_image

from qemu_hv.machine import MachineError
from qemu_hv.pytest_plugin import HvMachineFactory

HERE = Path(__file__).resolve().parent
PATIENCE = 60.0

Connect = Callable[..., socket.socket]


@pytest.fixture
def debuggee(hv_machine: HvMachineFactory, tmp_path: Path) -> Connect:
    """Give a function that starts a guest and one that connects to its debug port."""
    path = tmp_path / "debugger"
    image = build_image(HERE / "debuggee_guest.c", 64)

    def connect(way: str = "hypercalls", *, start: bool = True) -> socket.socket:
        if start:
            machine = hv_machine(
                kernel=image.path,
                append=f"way={way}",
                memory="128M",
                console="debugcon",
                smp=1,
                hypervisor={"debug-chardev": "debugger"},
                extra=["-chardev", f"socket,id=debugger,path={path},server=on,wait=off"],
            )
            machine.wait_for("^ready", timeout=PATIENCE)
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(PATIENCE)
        peer.connect(str(path))
        return peer

    return connect


def receive(peer: socket.socket, size: int, *, at_once: int = 65536, pause: float = 0.0) -> bytes:
    """So many bytes."""
    found = bytearray()
    while len(found) < size:
        part = peer.recv(min(at_once, size - len(found)))
        assert part, f"the connection ended after {len(found)} of {size} bytes"
        found += part
        time.sleep(pause)
    return bytes(found)


def turned_over(data: bytes) -> bytes:
    """What the guest makes of it."""
    return bytes(byte ^ 0xFF for byte in data)


def some_bytes(size: int) -> bytes:
    """Bytes that are all different from their neighbours' neighbours."""
    return random.Random(20).randbytes(size)


@pytest.mark.parametrize("way", ["hypercalls", "registers"])
def test_data_goes_both_ways(debuggee: Connect, way: str) -> None:
    """TLFS 20.1.2, 20.1.3: a few bytes, then many pages while the guest already answers."""
    with debuggee(way) as peer:
        peer.sendall(b"hello")
        assert receive(peer, 5) == turned_over(b"hello")
        data = some_bytes(200_000)
        found = b""
        for begin in range(0, len(data), 50_000):
            peer.sendall(data[begin : begin + 50_000])
            found += receive(peer, 50_000)
        assert found == turned_over(data)


def test_nothing_is_lost_to_a_slow_debugger(debuggee: Connect) -> None:
    """TLFS 20.1.2: the guest is told that there is no room until the debugger has read."""
    with debuggee() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        data = some_bytes(60_000)
        peer.sendall(data)
        time.sleep(0.5)
        assert receive(peer, len(data), at_once=3000, pause=0.005) == turned_over(data)


def test_a_debugger_may_go_and_another_come(debuggee: Connect) -> None:
    """TLFS 20.1: the connection is volatile, the session stays."""
    with debuggee() as peer:
        peer.sendall(b"first")
        assert receive(peer, 5) == turned_over(b"first")
    with debuggee(start=False) as peer:
        peer.sendall(b"second")
        assert receive(peer, 6) == turned_over(b"second")


def test_an_unknown_character_device_is_refused(hv_machine: HvMachineFactory) -> None:
    """In one line that says what to do."""
    with pytest.raises(MachineError) as error:
        hv_machine(memory="64M", hypervisor={"debug-chardev": "nobody"})
    assert "debug-chardev=nobody: there is no such character device; add -chardev ...,id=nobody" in str(error.value)
