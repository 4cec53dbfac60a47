"""BIND and UNBIND as the drivers do them."""

import asyncio
from collections.abc import Callable
from typing import Any

from helpers.doubles.events import say
from helpers.doubles.hoody_frames import Frame, Type, json_frame

BIND_SECONDS = 30.0
UNBIND_SECONDS = 2.0


class BindRefused(Exception):
    """A BIND_ERR, or none of the answers there are."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


class Binds:
    """The ports a session holds, and the questions about them that are open."""

    def __init__(self, send: Callable[[Frame], None]) -> None:
        self._send = send
        self._next_ref = 1
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._released = asyncio.Event()
        self.held: dict[int, dict[str, Any]] = {}

    async def bind(
        self, kind: str, mode: str, container_port: int, **options: object
    ) -> dict[str, Any]:
        """Ask for a port and return the BIND_OK.

        Raises:
            BindRefused: By the kit, or for want of an answer.
        """
        ref, self._next_ref = self._next_ref, self._next_ref + 1
        self._asked[ref] = asyncio.get_running_loop().create_future()
        fields = {
            "clientBindRef": ref,
            "kind": kind,
            "mode": mode,
            "containerPort": container_port,
            **options,
        }
        asked = self._asked[ref]
        self._send(json_frame(Type.BIND, fields))
        try:
            async with asyncio.timeout(BIND_SECONDS):
                answer = await asked
        except TimeoutError:
            raise BindRefused("TIMEOUT", "no answer to BIND within 30 s") from None
        self.held[answer["bindId"]] = answer
        return answer

    async def release(self) -> None:
        """Give all ports back, as far as the kit answers in time."""
        for bind_id in list(self.held):
            self._send(json_frame(Type.UNBIND, {"bindId": bind_id}))
        try:
            async with asyncio.timeout(UNBIND_SECONDS):
                while self.held:
                    self._released.clear()
                    await self._released.wait()
        except TimeoutError:
            say("violation", text=f"no answer to UNBIND of {list(self.held)}")

    def receive(self, frame: Frame) -> None:
        """Take an answer of the kit."""
        if frame.type in {Type.UNBIND_OK, Type.UNBIND_ERR}:
            answer = frame.json()
            say("unbound", ok=frame.type == Type.UNBIND_OK, **answer)
            self.held.pop(answer["bindId"], None)
            self._released.set()
            return
        try:
            answer = frame.json()
            asked = self._asked.pop(answer["clientBindRef"])
        except (ValueError, KeyError):
            say("violation", text=f"an answer to no BIND: {frame.payload!r}")
            self.fail("INTERNAL", "an answer to no BIND")
            return
        if frame.type == Type.BIND_ERR:
            asked.set_exception(BindRefused(answer["code"], answer["message"]))
            return
        if not isinstance(answer.get("bindId"), int) or "publicUrl" not in answer:
            say("violation", text=f"BIND_OK is {answer}")
        asked.set_result(answer)

    def fail(self, code: str, message: str) -> None:
        """No answer will come any more."""
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(BindRefused(code, message))
        self._asked.clear()
