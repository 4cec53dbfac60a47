"""What both ends of a tunnel must agree on: frames, messages, flow control, and a thin asyncio shell.

`hoody` is the sans-I/O core (standard library only, no I/O, no clock); `aio` drives it over WebSocket
transports. The byte-exact description is in `docs/reference/protocol.md`.
"""
