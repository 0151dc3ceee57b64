# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's console as lines and text."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from qemu_hv.console import Console, ConsoleClosed, ConsoleTimeout


def in_loop(work: Callable[[Console], Awaitable[None]]) -> None:
    async def run() -> None:
        await work(Console())

    asyncio.run(run())


def test_lines_over_chunks() -> None:
    seen: list[str] = []
    console = Console(seen.append)
    for chunk in (b"one\r\ntw", b"o\n\nthr", "\N{EURO SIGN}".encode()[:1], "\N{EURO SIGN}".encode()[1:], b"ee"):
        console.feed(chunk)
    assert console.lines == seen == ["one", "two", ""]
    console.close()
    assert seen[-1] == "thr\N{EURO SIGN}ee"
    assert console.text == "one\ntwo\n\nthr\N{EURO SIGN}ee"


def test_bytes_that_are_no_text() -> None:
    console = Console()
    console.feed(b"a\xffb\n\xe2")
    console.close()
    bad = "\N{REPLACEMENT CHARACTER}"
    assert console.lines == [f"a{bad}b", bad]


def test_wait_for_each_prompt() -> None:
    async def work(console: Console) -> None:
        console.feed(b"login: login: x=")
        assert (await console.wait_for(r"login: ", 1)).start() == 0
        assert (await console.wait_for(r"login: ", 1)).start() == 7
        waiting = asyncio.ensure_future(console.wait_for(r"x=(\d+)$", 5))
        await asyncio.sleep(0)
        console.feed(b"42\n")
        assert (await waiting)[1] == "42"

    in_loop(work)


def test_timeout_shows_the_last_lines() -> None:
    async def work(console: Console) -> None:
        console.feed(b"first\nsecond\nunfinished")
        with pytest.raises(ConsoleTimeout, match=r"(?s)'never' did not come .* 0\.01 s.*second\nunfinished"):
            await console.wait_for("never", 0.01)

    in_loop(work)


def test_close_ends_waits() -> None:
    async def work(console: Console) -> None:
        waiting = asyncio.ensure_future(console.wait_for("never", 60))
        await asyncio.sleep(0)
        console.close()
        with pytest.raises(ConsoleClosed, match="'never'"):
            await waiting
        with pytest.raises(ConsoleClosed):
            await console.write("x")

    in_loop(work)


def test_what_came_before_the_close_still_matches() -> None:
    async def work(console: Console) -> None:
        console.feed(b"late")
        console.close()
        await console.wait_for("late", 0.01)

    in_loop(work)


def test_follow() -> None:
    async def work(console: Console) -> None:
        async def collect() -> list[str]:
            return [line async for line in console.follow()]

        console.feed(b"one\n")
        following = asyncio.ensure_future(collect())
        await asyncio.sleep(0)
        console.feed(b"two\nthree")
        console.close()
        assert await following == ["one", "two", "three"]

    in_loop(work)
