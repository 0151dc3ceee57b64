# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest writes to its serial console, as it comes."""

from __future__ import annotations

import asyncio
import codecs
import re
from collections.abc import AsyncIterator
from typing import Callable, Optional, Union

__all__ = ["Console", "ConsoleClosed", "ConsoleTimeout"]

_TAIL_LINES = 15


class ConsoleTimeout(TimeoutError):
    """The text waited for did not come in time. The message ends with the last lines that did."""


class ConsoleClosed(EOFError):
    """The console ended, with its machine, before the text waited for came."""


class Console:
    """The text of one console.

    Bytes are taken as UTF-8; what is not valid becomes U+FFFD. Carriage returns are dropped.
    Everything the guest has written is kept for as long as the object lives.

    Args:
        on_line: called with each line, without its newline, when it is complete.
    """

    def __init__(self, on_line: Optional[Callable[[str], None]] = None) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._lines: list[str] = []
        self._line_start = 0
        self._cursor = 0
        self._closed = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._on_line = on_line
        self._writer: Optional[asyncio.StreamWriter] = None

    @property
    def text(self) -> str:
        """All text so far, the unfinished last line included."""
        return self._text

    @property
    def lines(self) -> list[str]:
        """All complete lines so far, without their newlines."""
        return list(self._lines)

    @property
    def closed(self) -> bool:
        """Whether no more text can come."""
        return self._closed

    def tail(self, count: int = _TAIL_LINES) -> str:
        """Return the last `count` lines, the unfinished one included."""
        return "\n".join(self._text.rstrip("\n").split("\n")[-count:])

    def attach(self, writer: asyncio.StreamWriter) -> None:
        """Take `writer` as the way to the guest for `write()`."""
        self._writer = writer

    def feed(self, data: bytes) -> None:
        """Take over bytes that the guest wrote."""
        self._append(self._decoder.decode(data))

    def close(self) -> None:
        """Say that no more text will come. An unfinished last line counts as a line then."""
        if self._closed:
            return
        self._append(self._decoder.decode(b"", final=True))
        self._closed = True
        if self._line_start < len(self._text):
            self._finish_line(self._text[self._line_start :])
            self._line_start = len(self._text)
        self._wake()

    async def write(self, text: str) -> None:
        """Send `text` to the guest as if it were typed.

        Raises:
            ConsoleClosed: there is no guest at the other end.
        """
        if self._writer is None or self._closed:
            raise ConsoleClosed("cannot write to the console: no machine is connected to it")
        self._writer.write(text.encode())
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise ConsoleClosed("cannot write to the console: the machine has ended") from error

    async def wait_for(self, pattern: Union[str, re.Pattern[str]], timeout: float = 60.0) -> re.Match[str]:
        """Wait until the guest has written something that matches a regular expression.

        The search begins after the previous match, so that waiting for the same prompt twice
        waits for two prompts. `^` and `$` match at lines' ends.

        Args:
            pattern: what to search for.
            timeout: seconds.

        Raises:
            ConsoleTimeout: it did not come in time.
            ConsoleClosed: the console ended without it.
        """
        compiled = re.compile(pattern, re.MULTILINE) if isinstance(pattern, str) else pattern
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            match = compiled.search(self._text, self._cursor)
            if match is not None:
                self._cursor = match.end()
                return match
            if self._closed:
                raise ConsoleClosed(
                    f"the console ended before {compiled.pattern!r} came; its last lines:\n{self.tail()}"
                )
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or not await self._wait_change(left):
                raise ConsoleTimeout(
                    f"{compiled.pattern!r} did not come on the console in {timeout:g} s; its last lines:\n{self.tail()}"
                )

    async def follow(self) -> AsyncIterator[str]:
        """Iterate over the lines, from the first one on, until the console ends."""
        index = 0
        while True:
            while index < len(self._lines):
                yield self._lines[index]
                index += 1
            if self._closed:
                return
            await self._wait_change(None)

    def _append(self, text: str) -> None:
        text = text.replace("\r", "")
        if not text:
            return
        self._text += text
        while True:
            end = self._text.find("\n", self._line_start)
            if end < 0:
                break
            self._finish_line(self._text[self._line_start : end])
            self._line_start = end + 1
        self._wake()

    def _finish_line(self, line: str) -> None:
        self._lines.append(line)
        if self._on_line is not None:
            self._on_line(line)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _wait_change(self, timeout: Optional[float]) -> bool:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait_for(waiter, timeout)
        except asyncio.TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return True
