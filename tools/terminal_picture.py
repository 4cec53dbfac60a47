"""Draws `docs/pictures/terminal.svg`: the terminal view of the agent, by the code that draws it.

The events are invented, the picture is not: it is what `moleport_agent.display` shows for them, so
it cannot promise what the program does not do. Run by `make docs`; a test compares the result.
"""

import io
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from rich.console import Console

from moleport_agent.display import render
from moleport_agent.events import (
    AgentEvent,
    Connected,
    Connecting,
    LatencyMeasured,
    RequestSeen,
    TunnelOpened,
)
from moleport_agent.view_state import ViewState

PICTURE: Final = Path(__file__).parents[1] / "docs" / "pictures" / "terminal.svg"
WIDTH, HEIGHT = 100, 16
SERVER: Final = "https://tunnels.example.com:4040"
BEGAN: Final = datetime(2026, 3, 2, 9, 41, 7)  # noqa: DTZ001 - a time of day for a picture
VISITOR, PHONE = "203.0.113.9:52114", "198.51.100.27:40022"

STORY: Final[tuple[AgentEvent, ...]] = (
    Connecting(SERVER, 1),
    Connected("S-1", SERVER, resumed=False),
    TunnelOpened("shop", "https://quick-otter.tunnels.example.com", "localhost:3000"),
    TunnelOpened("database", "tcp://tunnels.example.com:20005", "localhost:5432"),
    LatencyMeasured(14.0),
    RequestSeen("shop", "GET", "/", 200, 18, VISITOR),
    RequestSeen("shop", "GET", "/assets/shop.css", 304, 4, VISITOR),
    RequestSeen("shop", "POST", "/cart", 201, 41, VISITOR),
    RequestSeen("shop", "GET", "/favicon.ico", 404, 3, PHONE),
    RequestSeen("database", "TCP", "", 0, 2210, PHONE),
    RequestSeen("shop", "POST", "/hooks/payment", 500, 112, "192.0.2.80:443"),
    RequestSeen("shop", "POST", "/hooks/payment", 200, 95, "192.0.2.80:443"),
)


def draw() -> str:
    """Return the picture as SVG; the same one each time."""
    state = ViewState(SERVER, {"shop": "localhost:3000", "database": "localhost:5432"})
    for number, event in enumerate(STORY):
        state.apply(event, now=float(number), at=BEGAN + timedelta(seconds=3 * number))
    console = Console(
        width=WIDTH, height=HEIGHT, record=True, file=io.StringIO(), force_terminal=True,
        color_system="truecolor", legacy_windows=False,
    )  # fmt: skip
    console.print(render(state, width=WIDTH, height=HEIGHT, now=float(len(STORY))))
    picture = console.export_svg(title="$ moleport start", unique_id="moleport")
    # Fonts from elsewhere would tell a stranger who reads our pages; monospace does.
    return re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
