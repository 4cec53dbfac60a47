"""What both ends of a tunnel must agree on: frames, messages, flow control, and a thin asyncio shell.

`hoody`, `yamux` and `rustunnel` are the sans-I/O core (no I/O, no clock, no event loop); `aio` drives it over
WebSocket transports. The byte-exact descriptions are `docs/reference/protocol.md` and `yamux.md`.
"""
