# SPDX-License-Identifier: GPL-2.0-or-later
"""Start, drive and stop a QEMU that emulates the Microsoft hypervisor.

`Machine` is for asyncio; `SyncMachine` is the same for code without an event loop, for example
anyone's pytest (see `qemu_hv.pytest_plugin`). Both are context managers: leaving them ends the QEMU
and removes what it left.

    async with Machine(MachineOptions(kernel=Path("vmlinuz"), append="console=ttyS0")) as machine:
        await machine.console.wait_for("Hypervisor detected: Microsoft Hyper-V", timeout=60)
        print(await machine.execute("query-hv"))
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Callable, Literal, Optional, TypeVar, Union, cast

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError, Runstate

from . import runtime
from .console import Console, ConsoleClosed, ConsoleTimeout
from .errors import UserError
from .qemu_binary import QemuBinary, find_qemu

__all__ = [
    "CommandFailed",
    "Console",
    "ConsoleClosed",
    "ConsoleTimeout",
    "Event",
    "Machine",
    "MachineDied",
    "MachineError",
    "MachineOptions",
    "SyncMachine",
]

T = TypeVar("T")
PropertyValue = Union[bool, int, str]
PathLike = Union[str, Path]

OBJECT_TYPE = "microsoft-hypervisor"
OBJECT_ID = "hv0"

_SOCKET_PATH_MAX = 100  # sun_path holds 108 bytes; the longest name used in the folder is 8
_POLL_SECONDS = 0.05
_CONSOLES = {
    "serial": ["-serial", "chardev:console0"],
    "debugcon": ["-device", "isa-debugcon,iobase=0xe9,chardev=console0"],
}


# What goes wrong is told by exceptions; without a handler Python would print the library's log too.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())


class MachineError(Exception):
    """A machine did not do what it was asked."""


class MachineDied(MachineError):
    """QEMU ended when it should not have.

    Attributes:
        exit_code: what QEMU returned; negative: the signal that killed it.
        stderr: what QEMU wrote to its standard output and error.
    """

    def __init__(self, doing: str, exit_code: int, stderr: str) -> None:
        self.exit_code = exit_code
        self.stderr = stderr
        super().__init__(f"QEMU {describe_exit(exit_code)} {doing}: {_one_line(stderr)}")


class CommandFailed(MachineError):
    """QEMU answered a QMP command with an error.

    Attributes:
        command: the command's name.
        error_class: QMP's class of the error, such as "GenericError" or "DeviceNotFound".
        description: QEMU's sentence.
    """

    def __init__(self, command: str, error_class: str, description: str) -> None:
        self.command = command
        self.error_class = error_class
        self.description = description
        super().__init__(f"{command}: {description}")


@dataclass(frozen=True)
class Event:
    """A QMP event.

    Attributes:
        index: its place among all events of the machine, from 0.
        name: such as "HV_GUEST_CRASH".
        data: its members.
        time: when it happened, in seconds since the epoch.
    """

    index: int
    name: str
    data: Mapping[str, Any]
    time: float


@dataclass(frozen=True)
class MachineOptions:
    """What machine to start.

    Attributes:
        kernel, initrd, append: QEMU's -kernel, -initrd and -append.
        smp: number of virtual processors.
        memory: size of the RAM, as for -m ("512M").
        machine: machine type ("q35", "pc").
        accel: as for -accel ("tcg", "tcg,thread=single").
        icount: as for -icount, or None.
        cpu: CPU model, or None for QEMU's default.
        hypervisor: properties of the microsoft-hypervisor object by name, or None for a machine
            without the object.
        actions: what QEMU does on a guest's "reboot", "shutdown", "panic" and "watchdog", as for
            -action. A guest that reboots ends the machine unless said otherwise.
        console: what the console is to the guest: its first serial port ("serial"), or the debug port 0xE9
            ("debugcon"), which only takes output.
        paused: do not run the guest until `cont()`.
        incoming: as for -incoming, or None.
        extra: more arguments, given to QEMU as they are, after all others.
        qemu: the binary; None for QEMU_HV_QEMU, and without it the one of `qemu_hv.build`.
        start_timeout: seconds until QMP must answer.
    """

    kernel: Optional[PathLike] = None
    initrd: Optional[PathLike] = None
    append: Optional[str] = None
    smp: int = 1
    memory: str = "512M"
    machine: str = "q35"
    accel: str = "tcg"
    icount: Optional[str] = None
    cpu: Optional[str] = None
    hypervisor: Optional[Mapping[str, PropertyValue]] = field(default_factory=dict)
    actions: Mapping[str, str] = field(default_factory=lambda: {"reboot": "shutdown"})
    console: Literal["serial", "debugcon"] = "serial"
    paused: bool = False
    incoming: Optional[str] = None
    extra: Sequence[str] = ()
    qemu: Optional[Union[PathLike, QemuBinary]] = None
    start_timeout: float = 60.0


def describe_exit(code: int) -> str:
    """Say in words how a process ended: `code` as `subprocess` gives it."""
    if code >= 0:
        return f"ended with exit status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def object_argument(properties: Mapping[str, PropertyValue]) -> str:
    """Return the argument of -object for these properties of the hypervisor object."""
    parts = [OBJECT_TYPE, f"id={OBJECT_ID}"]
    for name, value in properties.items():
        if isinstance(value, bool):
            text = "on" if value else "off"
        else:
            text = str(value).replace(",", ",,")
        parts.append(f"{name}={text}")
    return ",".join(parts)


def command_line(options: MachineOptions, qemu: QemuBinary, sockets: Path) -> list[str]:
    """Return the command line of a machine whose sockets are in the folder `sockets`."""
    argv = [str(qemu.path)]
    for folder in qemu.firmware_dirs:
        argv += ["-L", str(folder)]
    argv += ["-nodefaults", "-no-user-config", "-display", "none"]
    argv += ["-machine", options.machine, "-accel", options.accel]
    argv += ["-smp", str(options.smp), "-m", options.memory]
    argv += _optional("-icount", options.icount) + _optional("-cpu", options.cpu)
    if options.hypervisor is not None:
        argv += ["-object", object_argument(options.hypervisor)]
    argv += _optional("-kernel", options.kernel) + _optional("-initrd", options.initrd)
    argv += _optional("-append", options.append) + _optional("-incoming", options.incoming)
    if options.actions:
        argv += [
            "-action",
            ",".join(f"{event}={action}" for event, action in options.actions.items()),
        ]
    if options.paused:
        argv.append("-S")
    argv += ["-chardev", f"socket,id=console0,path={_escape(sockets / 'con')}"]
    argv += _CONSOLES[options.console]
    argv += [
        "-chardev",
        f"socket,id=qmp0,path={_escape(sockets / 'qmp')}",
        "-mon",
        "chardev=qmp0,mode=control",
    ]
    argv += ["-chardev", f"socket,id=qmp1,path={_escape(sockets / 'control')},server=on,wait=off"]
    argv += ["-mon", "chardev=qmp1,mode=control"]
    return argv + list(options.extra)


class Machine:
    """A QEMU process with the hypervisor object, its console and its QMP monitor.

    Args:
        options: what machine.
        on_line: called with each line that the guest writes to its console.

    Attributes:
        console: what the guest writes.
        events: all QMP events so far.
    """

    def __init__(
        self,
        options: Optional[MachineOptions] = None,
        *,
        on_line: Optional[Callable[[str], None]] = None,
    ) -> None:
        self.options = options if options is not None else MachineOptions()
        self.console = Console(on_line)
        self.events: list[Event] = []
        self.argv: list[str] = []
        self._folder: Optional[Path] = None
        self._output: Optional[IO[bytes]] = None
        self._process: Optional[asyncio.subprocess.Process] = None
        self._exit: Optional[asyncio.Task[int]] = None
        self._client: Optional[QMPClient] = None
        self._tasks: list[asyncio.Task[None]] = []
        self._server: Optional[asyncio.AbstractServer] = None
        self._event_added: Optional[asyncio.Event] = None
        self._stderr = ""
        self._jobs = 0

    # -- Life --

    async def __aenter__(self) -> Machine:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Start QEMU and connect to its monitor.

        Raises:
            UserError: no QEMU, or an option that cannot be.
            MachineDied: QEMU ended at once, for example because of a wrong property.
        """
        if self._process is not None:
            raise MachineError("this machine has been started before; make another one")
        qemu = find_qemu(self.options.qemu)
        _check_files(self.options)
        # Made here, since before Python 3.10 they belong to the event loop that is current when they are made.
        self._event_added = asyncio.Event()
        self._client = QMPClient("qemu-hv")
        try:
            await self._spawn(qemu)
            await self._connect()
        except BaseException:
            await self.close()
            raise
        runtime.record_machine(self.pid, self.control_socket)

    async def close(self) -> None:
        """End QEMU, at once if it still runs, and remove its sockets. Does nothing the second time."""
        await self._disconnect()
        if self._process is not None and self._process.returncode is None:
            self._signal_group(signal.SIGKILL)
        if self._exit is not None:
            await self._exit
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self.console.close()
        self._read_output()
        if self._folder is not None:
            runtime.forget_machine(self.control_socket)
            shutil.rmtree(self._folder)
            self._folder = None

    @property
    def pid(self) -> int:
        """Process ID of QEMU."""
        if self._process is None:
            raise MachineError("the machine has not been started")
        return self._process.pid

    @property
    def control_socket(self) -> Path:
        """Path of a second QMP monitor, for `qemu-hv status` and other tools."""
        if self._folder is None:
            raise MachineError("the machine is not running")
        return self._folder / "control"

    @property
    def running(self) -> bool:
        """Whether the QEMU process is alive."""
        return self._process is not None and self._process.returncode is None

    @property
    def exit_code(self) -> Optional[int]:
        """What QEMU returned (negative: the signal that killed it), or None while it runs."""
        return None if self._process is None else self._process.returncode

    @property
    def stderr(self) -> str:
        """What QEMU has written to its standard output and error."""
        self._read_output()
        return self._stderr

    async def wait(self, timeout: float = 60.0) -> int:
        """Wait until QEMU has ended; return its exit status.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: it still runs.
        """
        if self._exit is None:
            raise MachineError("the machine has not been started")
        try:
            return await asyncio.wait_for(asyncio.shield(self._exit), timeout)
        except asyncio.TimeoutError as error:
            raise TimeoutError(f"QEMU still runs after {timeout:g} s") from error

    async def quit(self, timeout: float = 30.0) -> int:
        """Ask QEMU to end, wait for it, return its exit status. The guest is not asked.

        Raises:
            TimeoutError: it still runs after `timeout` seconds.
            MachineDied: it ended with an error.
        """
        if self.running:
            try:
                await self.execute("quit")
            except MachineDied as error:
                # It may end before the answer to "quit" has been read.
                if error.exit_code != 0:
                    raise
        code = await self.wait(timeout)
        if code != 0:
            raise MachineDied("when it was asked to quit", code, self.stderr)
        return code

    # -- QMP --

    async def execute(self, command: str, arguments: Optional[Mapping[str, object]] = None) -> Any:
        """Execute a QMP command and return its result.

        Raises:
            CommandFailed: QEMU answered with an error.
            MachineDied: QEMU ended.
        """
        if self._process is None:
            raise MachineError("the machine has not been started")
        try:
            return await self._qmp.execute(command, dict(arguments) if arguments else None)
        except ExecuteError as error:
            raise CommandFailed(command, error.error_class, str(error)) from error
        except QMPError as error:
            raise await self._why_no_answer(f"during {command}", error) from error

    async def wait_event(
        self,
        name: str,
        timeout: float = 60.0,
        *,
        after: Optional[Event] = None,
        match: Optional[Callable[[Event], bool]] = None,
    ) -> Event:
        """Return the first event of that name, waiting for it if it has not happened yet.

        Args:
            name: such as "SHUTDOWN".
            timeout: seconds.
            after: only events later than this one.
            match: only events for which it returns true.

        Raises:
            TimeoutError: there was none in time.
            MachineDied: QEMU ended without it.
        """
        index = 0 if after is None else after.index + 1
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while True:
            added = self._added()
            added.clear()
            for event in self.events[index:]:
                index = event.index + 1
                if event.name == name and (match is None or match(event)):
                    return event
            if not self.running and self._qmp.runstate is not Runstate.RUNNING:
                raise MachineDied(f"before the event {name}", await self.wait(), self.stderr)
            try:
                await asyncio.wait_for(added.wait(), min(deadline - loop.time(), 1.0))
            except asyncio.TimeoutError:
                if loop.time() >= deadline:
                    raise TimeoutError(f"no event {name} in {timeout:g} s") from None

    # -- Thin wrappers of QMP --

    async def stop(self) -> None:
        """Suspend all virtual processors."""
        await self.execute("stop")

    async def cont(self) -> None:
        """Resume all virtual processors."""
        await self.execute("cont")

    async def reset(self) -> None:
        """Reset the machine, as its button does."""
        await self.execute("system_reset")

    async def powerdown(self) -> None:
        """Ask the guest to power off, as the power button does."""
        await self.execute("system_powerdown")

    async def status(self) -> str:
        """Return QEMU's run state ("running", "paused", "shutdown", ...)."""
        return str((await self.execute("query-status"))["status"])

    async def save_to_file(self, path: PathLike, timeout: float = 120.0) -> None:
        """Migrate the machine's state to a file and wait until it is complete; the machine is left paused.

        Raises:
            MachineError: the migration failed, or lasted longer than `timeout` seconds.
        """
        await self.migrate(f"file:{path}", timeout)

    async def migrate(self, uri: str, timeout: float = 120.0) -> None:
        """Migrate to `uri` and wait until it is complete. Errors as `save_to_file()`."""
        await self.execute("migrate", {"uri": uri})
        await self._wait_migration(timeout)

    async def load_from_file(self, path: PathLike, timeout: float = 120.0) -> None:
        """Take over a state saved by `save_to_file()`.

        The machine must have been started with incoming="defer".

        Raises:
            MachineError: the state cannot be loaded, or not within `timeout` seconds.
        """
        await self.execute("migrate-incoming", {"uri": f"file:{path}", "exit-on-error": False})
        await self._wait_migration(timeout)

    async def run_job(self, command: str, arguments: Mapping[str, object], timeout: float = 120.0) -> None:
        """Execute a command that starts a background job, such as blockdev-create, and wait until the job ends.

        Args:
            command: its name.
            arguments: all but the job's ID.
            timeout: seconds.

        Raises:
            MachineError: the job failed, or lasts longer than that.
        """
        self._jobs += 1
        job = f"qemu-hv-{self._jobs}"
        await self.execute(command, {"job-id": job, **arguments})
        async for _ in _poll(timeout, f"{command} has not ended"):
            info = next((j for j in await self.execute("query-jobs") if j["id"] == job), None)
            if info is not None and info["status"] == "concluded":
                await self.execute("job-dismiss", {"id": job})
                if "error" in info:
                    raise MachineError(f"{command}: {info['error']}")
                return

    async def save_snapshot(self, tag: str, node: str, timeout: float = 120.0) -> None:
        """Save an internal snapshot.

        Args:
            tag: name of the snapshot.
            node: block node that takes it, the machine's state included.
            timeout: seconds.

        Raises:
            MachineError: it failed, or lasts longer than that.
        """
        await self.run_job("snapshot-save", {"tag": tag, "vmstate": node, "devices": [node]}, timeout)

    async def load_snapshot(self, tag: str, node: str, timeout: float = 120.0) -> None:
        """Go back to an internal snapshot. Arguments and errors as `save_snapshot()`."""
        await self.run_job("snapshot-load", {"tag": tag, "vmstate": node, "devices": [node]}, timeout)

    # -- Inside --

    async def _spawn(self, qemu: QemuBinary) -> None:
        self._folder = _socket_folder()
        self._output = (self._folder / "output").open("w+b")
        self._server = await asyncio.start_unix_server(self._console_connected, self._folder / "con")
        await self._qmp.start_server(str(self._folder / "qmp"))
        self.argv = command_line(self.options, qemu, self._folder)
        # A policy runs in this interpreter's environment, where our own packages are.
        environment = {"QEMU_HV_PYTHON": sys.executable, **os.environ, **qemu.environment}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *_die_with_parent(),
                *self.argv,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise UserError(f"cannot run {qemu.path}: {error.strerror}") from error
        self._exit = asyncio.ensure_future(self._process.wait())

    async def _connect(self) -> None:
        assert self._exit is not None
        listener = EventListener()
        self._qmp.register_listener(listener)
        self._tasks.append(asyncio.ensure_future(self._pump_events(listener)))
        accept = asyncio.ensure_future(self._qmp.accept())
        try:
            await asyncio.wait(
                {accept, self._exit},
                timeout=self.options.start_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not accept.done():
                if self._exit.done():
                    raise MachineDied("at start", self._exit.result(), self.stderr)
                raise MachineError(
                    f"QEMU's monitor did not answer in {self.options.start_timeout:g} s: {_one_line(self.stderr)}"
                )
            try:
                accept.result()
            except QMPError as error:
                raise await self._why_no_answer("at start", error) from error
        finally:
            if not accept.done():
                accept.cancel()
                await asyncio.gather(accept, return_exceptions=True)

    async def _disconnect(self) -> None:
        if self._client is None or self._client.runstate is Runstate.IDLE:
            return
        try:
            await self._client.disconnect()
        except (QMPError, OSError, EOFError):
            # The connection ended badly, as it does when QEMU is killed. It is gone, which was wanted.
            return

    async def _console_connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.console.attach(writer)
        try:
            while True:
                data = await reader.read(65536)
                if not data:
                    break
                self.console.feed(data)
        except ConnectionResetError:
            # QEMU was killed while its end was open; what it had sent has been read.
            pass
        finally:
            self.console.close()
            writer.close()

    async def _pump_events(self, listener: EventListener) -> None:
        async for message in listener:
            stamp = cast("Mapping[str, int]", message["timestamp"])
            seconds = stamp["seconds"] + stamp["microseconds"] / 1e6
            data = cast("Mapping[str, Any]", message.get("data", {}))
            self.events.append(Event(len(self.events), str(message["event"]), data, seconds))
            self._added().set()

    @property
    def _qmp(self) -> QMPClient:
        if self._client is None:
            raise MachineError("the machine has not been started")
        return self._client

    def _added(self) -> asyncio.Event:
        if self._event_added is None:
            raise MachineError("the machine has not been started")
        return self._event_added

    async def _why_no_answer(self, doing: str, error: Exception) -> MachineError:
        """QMP broke: give a dying QEMU a moment to end, and say what happened."""
        try:
            code = await self.wait(5.0)
        except TimeoutError:
            return MachineError(f"QEMU's monitor broke {doing}: {error}")
        return MachineDied(doing, code, self.stderr)

    async def _wait_migration(self, timeout: float) -> None:
        async for _ in _poll(timeout, "the migration is not complete"):
            info = await self.execute("query-migrate")
            status = info.get("status")
            if status == "completed":
                return
            if status in ("failed", "cancelled"):
                raise MachineError(f"the migration {status}: {info.get('error-desc', _one_line(self.stderr))}")

    def _signal_group(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            # It ended in the meantime.
            return

    def _read_output(self) -> None:
        if self._output is not None and self._folder is not None:
            self._stderr = (self._folder / "output").read_bytes().decode("utf-8", "replace")
            if not self.running:
                self._output.close()
                self._output = None


class SyncMachine:
    """`Machine` for code without an event loop: the same methods, blocking.

    The machine runs on an event loop of its own in a thread of its own.
    """

    def __init__(
        self,
        options: Optional[MachineOptions] = None,
        *,
        on_line: Optional[Callable[[str], None]] = None,
    ) -> None:
        self.machine = Machine(options, on_line=on_line)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qemu-hv machine", daemon=True)
        self._thread.start()

    def __enter__(self) -> SyncMachine:
        self.start()
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the machine's event loop and return its result.

        For what has no method here, for example `machine.call(machine.machine.migrate(uri))`.
        """
        if self._loop.is_closed():
            work.close()
            raise MachineError("the machine has been closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def start(self) -> None:
        """See `Machine.start()`."""
        try:
            self.call(self.machine.start())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """See `Machine.close()`."""
        if self._loop.is_closed():
            return
        try:
            self.call(self.machine.close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    @property
    def events(self) -> list[Event]:
        """All QMP events so far."""
        return list(self.machine.events)

    @property
    def running(self) -> bool:
        """Whether the QEMU process is alive."""
        return self.machine.running

    @property
    def exit_code(self) -> Optional[int]:
        """See `Machine.exit_code`."""
        return self.machine.exit_code

    @property
    def stderr(self) -> str:
        """What QEMU has written to its standard output and error."""
        return self.machine.stderr

    @property
    def console_text(self) -> str:
        """All the guest has written to its console."""
        return self.machine.console.text

    def wait_for(self, pattern: Union[str, re.Pattern[str]], timeout: float = 60.0) -> re.Match[str]:
        """See `Console.wait_for()`."""
        return self.call(self.machine.console.wait_for(pattern, timeout))

    def write_console(self, text: str) -> None:
        """See `Console.write()`."""
        self.call(self.machine.console.write(text))

    def execute(self, command: str, arguments: Optional[Mapping[str, object]] = None) -> Any:
        """See `Machine.execute()`."""
        return self.call(self.machine.execute(command, arguments))

    def wait_event(
        self,
        name: str,
        timeout: float = 60.0,
        *,
        after: Optional[Event] = None,
        match: Optional[Callable[[Event], bool]] = None,
    ) -> Event:
        """See `Machine.wait_event()`."""
        return self.call(self.machine.wait_event(name, timeout, after=after, match=match))

    def wait(self, timeout: float = 60.0) -> int:
        """See `Machine.wait()`."""
        return self.call(self.machine.wait(timeout))

    def quit(self, timeout: float = 30.0) -> int:
        """See `Machine.quit()`."""
        return self.call(self.machine.quit(timeout))

    def stop(self) -> None:
        """See `Machine.stop()`."""
        self.call(self.machine.stop())

    def cont(self) -> None:
        """See `Machine.cont()`."""
        self.call(self.machine.cont())

    def reset(self) -> None:
        """See `Machine.reset()`."""
        self.call(self.machine.reset())

    def status(self) -> str:
        """See `Machine.status()`."""
        return self.call(self.machine.status())

    def save_to_file(self, path: PathLike, timeout: float = 120.0) -> None:
        """See `Machine.save_to_file()`."""
        self.call(self.machine.save_to_file(path, timeout))

    def load_from_file(self, path: PathLike, timeout: float = 120.0) -> None:
        """See `Machine.load_from_file()`."""
        self.call(self.machine.load_from_file(path, timeout))

    def run_job(self, command: str, arguments: Mapping[str, object], timeout: float = 120.0) -> None:
        """See `Machine.run_job()`."""
        self.call(self.machine.run_job(command, arguments, timeout))

    def save_snapshot(self, tag: str, node: str, timeout: float = 120.0) -> None:
        """See `Machine.save_snapshot()`."""
        self.call(self.machine.save_snapshot(tag, node, timeout))

    def load_snapshot(self, tag: str, node: str, timeout: float = 120.0) -> None:
        """See `Machine.load_snapshot()`."""
        self.call(self.machine.load_snapshot(tag, node, timeout))


def _optional(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _escape(path: Path) -> str:
    return str(path).replace(",", ",,")


def _one_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines) if lines else "it wrote no message"


def _check_files(options: MachineOptions) -> None:
    for what, path in (("kernel", options.kernel), ("initrd", options.initrd)):
        if path is None:
            continue
        try:
            with open(path, "rb"):
                pass
        except OSError as error:
            raise UserError(f"cannot read the {what} {path}: {error.strerror}") from error


def _socket_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="qemu-hv-")
    if len(os.fsencode(folder)) > _SOCKET_PATH_MAX:
        os.rmdir(folder)
        raise UserError(f"the path of the temporary folder is too long for a socket: {folder}; set TMPDIR")
    return Path(folder)


def _die_with_parent() -> list[str]:
    """Arguments that make the program after them end when we end without having been able to clean up."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]


async def _poll(timeout: float, complaint: str) -> AsyncIterator[None]:
    """Iterate at short intervals.

    Raises:
        MachineError: with `complaint`, after `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while loop.time() < deadline:
        yield
        await asyncio.sleep(_POLL_SECONDS)
    raise MachineError(f"{complaint} after {timeout:g} s")


def quote_command(argv: Sequence[str]) -> str:
    """Return a command line as a shell would take it."""
    return " ".join(shlex.quote(word) for word in argv)
