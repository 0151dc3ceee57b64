# SPDX-License-Identifier: GPL-2.0-or-later
"""``qemu-hv export``: a Prometheus endpoint, by prometheus_client, which is imported here only."""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional

from ..errors import UserError
from ..qmp_session import QmpSession, add_address_argument, address_of, open_session
from . import COUNTERS, Counter, Key, Snapshot, query

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["add_arguments", "execute", "metrics"]

_DEFAULT_PORT = 9469
_PREFIX = {"hypervisor": "hv", "logical-processor": "hv_lp", "partition": "hv_partition", "vp": "hv_vp"}
_LABELS = {"hypervisor": [], "logical-processor": ["lp"], "partition": ["partition"], "vp": ["partition", "vp"]}
_SECONDS = {"100ns": 1e-7, "ns": 1e-9}
_SCRAPE_SECONDS = 10.0
_LOOK_SECONDS = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_address_argument(parser)
    parser.add_argument("--listen", metavar="ADDRESS", default="127.0.0.1", help="(default: 127.0.0.1)")
    parser.add_argument(
        "--port", metavar="N", type=int, default=_DEFAULT_PORT, help=f"0: any free one (default: {_DEFAULT_PORT})"
    )


def execute(args: argparse.Namespace) -> int:
    """Serve until the machine ends."""
    try:
        import prometheus_client  # noqa: F401
    except ImportError as error:
        raise UserError("export needs prometheus_client; install it with: pip install 'qemu-hv[stats]'") from error
    return asyncio.run(_serve(address_of(args), args.listen, args.port))


# -- Metrics --


def _metric_name(counter: Counter) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", counter.symbol).lower()
    unit = {"time": "_seconds", "cost": "_seconds", "percent": "_ratio"}.get(counter.kind, "")
    return f"{_PREFIX[counter.object]}_{words}{unit}"


def _metric_value(counter: Counter, value: int) -> float:
    if counter.kind == "percent":
        return value / 100
    return value * _SECONDS.get(counter.unit, 1)


def _labels(key: Key) -> list[str]:
    known = {"lp": key.index, "partition": key.partition, "vp": key.index}
    return [str(known[name]) for name in _LABELS[key.object]]


def metrics(snapshot: Snapshot) -> Iterator[Metric]:
    """All counters as metrics, in base units, and hypercalls by name."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    for kind, counters in COUNTERS.items():
        for counter in counters.values():
            family: Any = CounterMetricFamily if counter.grows else GaugeMetricFamily
            metric = family(_metric_name(counter), f"{counter.name}: {counter.what}", labels=_LABELS[kind])
            for key, sample in snapshot.objects.items():
                if key.object == kind and counter.symbol in sample.counters:
                    metric.add_metric(_labels(key), _metric_value(counter, sample.counters[counter.symbol]))
            if metric.samples:
                yield metric
    calls = CounterMetricFamily("hv_vp_hypercalls_by_name", "Hypercalls by name", labels=["partition", "vp", "name"])
    for key, sample in snapshot.objects.items():
        for name, count in sample.hypercalls.items():
            calls.add_metric([*_labels(key), name], count)
    yield calls


# -- Server --


class _Collector:
    """Asks the machine when somebody asks the endpoint. `collect` runs on threads of the server."""

    def __init__(self, session: QmpSession, loop: asyncio.AbstractEventLoop, failed: asyncio.Event) -> None:
        self._session = session
        self._loop = loop
        self._failed = failed
        self.error: Optional[UserError] = None

    def describe(self) -> list[Metric]:
        """Nothing is asked when the collector is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The counters now."""
        return metrics(asyncio.run_coroutine_threadsafe(self._query(), self._loop).result(_SCRAPE_SECONDS))

    async def _query(self) -> Snapshot:
        try:
            return await query(self._session)
        except UserError as error:
            self.error = error
            self._failed.set()
            raise


async def _serve(address: str, listen: str, port: int) -> int:
    from prometheus_client import CollectorRegistry, start_http_server

    async with open_session(address) as session:
        await query(session)
        failed = asyncio.Event()
        collector = _Collector(session, asyncio.get_running_loop(), failed)
        registry = CollectorRegistry()
        registry.register(collector)
        try:
            server, thread = start_http_server(port, listen, registry)
        except OSError as error:
            raise UserError(f"cannot listen at {listen}:{port}: {error.strerror}") from error
        print(f"http://{listen}:{server.server_port}/metrics", flush=True)
        try:
            while not failed.is_set():
                await _look(session, failed)
        finally:
            server.shutdown()
            server.server_close()
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
    if collector.error is not None:
        raise collector.error
    return 0


async def _look(session: QmpSession, failed: asyncio.Event) -> None:
    """Wait a while, then see whether the machine is still there."""
    try:
        await asyncio.wait_for(failed.wait(), _LOOK_SECONDS)
    except asyncio.TimeoutError:
        await session.execute("query-status")
