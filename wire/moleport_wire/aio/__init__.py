"""The thin asyncio shell of the wire: the transport port, its WebSocket adapter, the muxer, splices."""
