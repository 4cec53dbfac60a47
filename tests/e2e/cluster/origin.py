"""A service behind an agent in the cluster; runs from a ConfigMap, in a pod of our own image."""

import asyncio
import contextlib
import os

from aiohttp import WSMsgType, web

PATTERN = bytes(range(256)) * 256


async def hello(request: web.Request) -> web.Response:
    """Say which pod answers, and to whom."""
    forwarded = request.headers.get("X-Forwarded-For", "")
    return web.json_response({"pod": os.uname().nodename, "visitor": forwarded})


async def size(request: web.Request) -> web.Response:
    """Answer with a body that can be checked."""
    count = int(request.match_info["size"])
    return web.Response(body=(PATTERN * (count // len(PATTERN) + 1))[:count])


async def slow(request: web.Request) -> web.Response:
    """Answer after some seconds."""
    await asyncio.sleep(float(request.query["seconds"]))
    return web.Response(text="at last")


async def events(request: web.Request) -> web.StreamResponse:
    """Send an event, and the next when the visitor has had time to see it."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(int(request.query["count"])):
        await response.write(f"data: {number}\n\n".encode())
        await asyncio.sleep(0.5)
    return response


async def socket(request: web.Request) -> web.WebSocketResponse:
    """Send back what comes."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
    return socket


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, on a plain connection."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def start_echo(app: web.Application) -> None:
    """Listen beside the HTTP service."""
    await asyncio.start_server(echo, "0.0.0.0", 9000)


app = web.Application()
app.add_routes(
    [
        web.get("/", hello),
        web.get("/size/{size}", size),
        web.get("/slow", slow),
        web.get("/events", events),
        web.get("/socket", socket),
    ]
)
app.on_startup.append(start_echo)
if __name__ == "__main__":
    web.run_app(app, port=8000, access_log=None)
