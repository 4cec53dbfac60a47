"""Measure the operator with thousands of TunnelTokens, and print the figures: `make scale`.

A Kubernetes API in memory and a real tunnel server stand around one real operator process. Tokens lie in
namespaces of a hundred, each with a policy; one policy of the whole cluster counts tokens. First all of them
are issued; then the operator ends, some tokens change, come and go, and it starts again: the time until
every token had its round and says what its spec says is the figure of a restart. Then nothing happens for
one period of resync but scrapes and probes, which is when the steady state is measured. CPU time and memory
are the kernel's.

The command fails when a figure is not what is promised for it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from helpers.kube_api import CLUSTER_POLICIES, NAMESPACES, POLICIES, TOKENS
from helpers.operator_rig import OperatorRig
from helpers.processes import Running

PER_NAMESPACE = 100
PATIENCE_SECONDS = 900.0
LIMIT_SECONDS = 60.0
LIMIT_BYTES = 256 * 1024**2
LIMIT_STEADY = 0.02
PROMISED_TOKENS = 5000
"""What the limits are promised for; more tokens have to work, in their own time."""
GLANCE_SECONDS = 65.0
"""At rest with more tokens than that: long enough for one list of their usage and two scrapes."""
MIB = 1024**2


@dataclass(frozen=True, slots=True)
class Usage:
    """What the kernel says of the operator, at one moment."""

    at: float
    cpu_seconds: float
    peak_bytes: int

    @classmethod
    def of(cls, running: Running) -> Usage:
        """Read it."""
        fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        cpu = ticks / os.sysconf("SC_CLK_TCK")
        return cls(time.monotonic(), cpu, running.peak_resident_bytes)


class Scale:
    """One run."""

    def __init__(self, rig: OperatorRig, tokens: int, resync: float) -> None:
        self.rig = rig
        self.tokens = tokens
        self.resync = resync
        self.failures: list[str] = []

    async def start(self) -> Running:
        """Start the operator, directly beside the server."""
        return await self.rig.start_operator(resync=self.resync, server_port=self.rig.site.api_port)

    def create(self, number: int) -> None:
        """Create a token, with what a real one carries."""
        namespace = f"team-{number // PER_NAMESPACE}"
        if number % PER_NAMESPACE == 0 and self.rig.kube.get(NAMESPACES, namespace) is None:
            metadata = {"name": namespace, "labels": {"tier": "teams"}}
            self.rig.kube.create(NAMESPACES, {"metadata": metadata})
            targets = [{"kind": "TunnelToken"}]
            spec = {"targetRefs": targets, "limits": {"maxTunnelsPerToken": 10}}
            metadata = {"name": "bounds", "namespace": namespace}
            self.rig.kube.create(POLICIES, {"metadata": metadata, "spec": spec})
        self.rig.apply(
            f"token-{number}",
            namespace,
            access={"http": {"hostnames": [f"app-{number}"]}},
            limits={"maxTunnels": 5},
            lifetime="720h",
        )

    def bound_the_cluster(self) -> None:
        """Create the policy that counts tokens."""
        targets = [{"kind": "Namespace", "selector": {"matchLabels": {"tier": "teams"}}}]
        spec = {"targetRefs": targets, "tokens": {"maxTokens": self.tokens * 2}}
        self.rig.kube.create(CLUSTER_POLICIES, {"metadata": {"name": "quota"}, "spec": spec})

    def unfinished(self) -> int:
        """Return how many tokens do not say yet what their spec says."""
        return sum(not _is_done(body) for body in self.rig.kube.bodies(TOKENS))

    async def converge(self, what: str, *, rounds: int) -> tuple[Usage, float]:
        """Wait until everything is done; returns usage then, and the seconds since now."""
        began = time.monotonic()
        told = began
        while True:
            await asyncio.sleep(0.5)
            _demand(self.rig.operator.exit_code is None, str(self.rig.operator))
            left = self.unfinished()
            now = time.monotonic()
            if left == 0 and await self._has_rested(rounds):
                return Usage.of(self.rig.operator), now - began
            _demand(now - began < PATIENCE_SECONDS, f"{what}: {left} left\n{self.rig.operator}")
            if now - told > 10:
                told = now
                print(f"  … {what}: {left} of {self.tokens} left", flush=True)

    async def _has_rested(self, rounds: int) -> bool:
        """Whether the operator says that every token had a round, and none waits."""
        try:
            values = await self.metrics()
        except aiohttp.ClientError:
            return False  # it does not listen yet
        return values.get("workqueue_depth", 1) == 0 and values.get("rounds", 0) >= rounds

    async def metrics(self) -> dict[str, float]:
        """Return a few of the operator's own figures."""
        _, text = await self.rig.health("/metrics")
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "workqueue_depth":
                    values["workqueue_depth"] = sample.value
                if (
                    sample.name == "controller_runtime_reconcile_total"
                    and sample.labels["controller"] == "tunneltoken"
                ):
                    values["rounds"] = values.get("rounds", 0) + sample.value
        return values

    def limit(self, what: str, value: float, most: float, shown: str) -> None:
        """Print a figure, and remember it if it is too large."""
        is_bound = self.tokens <= PROMISED_TOKENS
        is_good = value <= most or not is_bound
        print(f"  {what:<44}{shown}{'' if is_good else '   TOO MUCH'}", flush=True)
        if not is_good:
            self.failures.append(what)


def _is_done(body: dict[str, Any]) -> bool:
    status = body.get("status") or {}
    if status.get("observedGeneration") != body["metadata"]["generation"]:
        return False
    return any(
        condition["type"] == "Ready" and condition["status"] == "True"
        for condition in status.get("conditions", ())
    )


async def measure(tokens: int, steady_seconds: float, resync: float) -> list[str]:
    """Run everything; returns what was too much."""
    with tempfile.TemporaryDirectory() as folder:
        async with OperatorRig(Path(folder)) as rig:
            scale = Scale(rig, tokens, resync)
            for number in range(tokens):
                scale.create(number)
            scale.bound_the_cluster()
            await scale.start()
            print(
                f"{tokens} TunnelTokens, a policy per {PER_NAMESPACE} and one for all", flush=True
            )
            usage, seconds = await scale.converge("issue", rounds=tokens)
            print(f"  issued in {seconds:.1f} s, {usage.cpu_seconds:.1f} s of CPU,", end=" ")
            print(f"{usage.peak_bytes / MIB:.0f} MiB at most")
            await rig.operator.aclose()
            await _restart(scale)
            if steady_seconds:
                await _rest(scale, steady_seconds)
            return scale.failures


async def _restart(scale: Scale) -> None:
    """Change a tenth, delete a hundredth and add as many, then start again."""
    rig, tokens = scale.rig, scale.tokens
    for number in range(0, tokens, 10):
        rig.apply(
            f"token-{number}",
            f"team-{number // PER_NAMESPACE}",
            access={"http": {"hostnames": [f"app-{number}"]}},
            limits={"maxTunnels": 6},
            lifetime="720h",
        )
    gone = range(5, tokens, 100)
    for number in gone:
        rig.kube.delete(TOKENS, f"token-{number}", f"team-{number // PER_NAMESPACE}")
    for number in range(tokens, tokens + len(gone)):
        scale.create(number)
    writes = sum(count for call, count in rig.kube.calls.items() if _is_write(call))
    await scale.start()
    usage, seconds = await scale.converge("restart", rounds=tokens)
    left = sum("deletionTimestamp" in body["metadata"] for body in rig.kube.bodies(TOKENS))
    _demand(left == 0, f"{left} deleted tokens are left")
    rows = await rig.ours()
    _demand(len(rows) == tokens, f"the server has {len(rows)} tokens")
    writes = sum(count for call, count in rig.kube.calls.items() if _is_write(call)) - writes
    scale.limit(
        "converged after a restart (limit 60 s)", seconds, LIMIT_SECONDS, f"{seconds:.1f} s"
    )
    peak = usage.peak_bytes
    scale.limit("memory at most (limit 256 MiB)", peak, LIMIT_BYTES, f"{peak / MIB:.0f} MiB")
    print(f"  {'CPU for it':<44}{usage.cpu_seconds:.1f} s, load {os.getloadavg()[0]:.1f} meanwhile")
    print(f"  {'writes to the API for it':<44}{writes}")


async def _rest(scale: Scale, seconds: float) -> None:
    """Let nothing happen, and see what that costs."""
    await asyncio.sleep(5)  # kopf lets the workers of the start go
    before, calls = Usage.of(scale.rig.operator), sum(scale.rig.kube.calls.values())
    slowest = 0.0
    until = time.monotonic() + seconds
    for number in count():
        if (left := until - time.monotonic()) <= 0:
            break
        began = time.monotonic()
        await scale.rig.health("/livez")
        slowest = max(slowest, time.monotonic() - began)
        if number % 3 == 0:
            await scale.rig.health("/metrics")  # as Prometheus does every 30 s
        await asyncio.sleep(min(10.0, left))
    after = Usage.of(scale.rig.operator)
    share = (after.cpu_seconds - before.cpu_seconds) / (after.at - before.at)
    rate = (sum(scale.rig.kube.calls.values()) - calls) / seconds
    name = f"of one core at rest, for {seconds:.0f} s (limit 2 %)"
    scale.limit(name, share, LIMIT_STEADY, f"{share * 100:.2f} %")
    peak = after.peak_bytes
    scale.limit("memory at most (limit 256 MiB)", peak, LIMIT_BYTES, f"{peak / MIB:.0f} MiB")
    print(f"  {'calls of the API at rest':<44}{rate:.1f} per second")
    print(f"  {'slowest /livez at rest':<44}{slowest * 1000:.0f} ms")


def _demand(is_so: bool, text: str) -> None:  # noqa: FBT001 - reads like assert
    if not is_so:
        raise RuntimeError(text)


def _is_write(call: str) -> bool:
    return call.split("/", maxsplit=1)[0] in {"create", "patch", "update", "delete"}


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, action="append", help="how many; repeatable")
    parser.add_argument("--steady-seconds", type=float, default=600.0, help="0: skip that part")
    parser.add_argument("--resync", type=float, default=600.0, help="period of the operator")
    options = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}", end=""
    )
    # Three processes share the cores here; what others take away makes the seconds longer, not the CPU.
    print(f", load {os.getloadavg()[0]:.1f} before")
    failures = []
    for tokens in options.tokens or [PROMISED_TOKENS, 2 * PROMISED_TOKENS]:
        steady = options.steady_seconds
        if tokens > PROMISED_TOKENS:
            steady = min(steady, GLANCE_SECONDS)
        failures += asyncio.run(measure(tokens, steady, options.resync))
    if failures:
        sys.exit("too much: " + ", ".join(failures))


if __name__ == "__main__":
    main()
