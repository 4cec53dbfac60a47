"""Writes `docs/reference/errors.md` from the table: `python -m moleport_server.edge.reference`."""

import sys
from pathlib import Path
from typing import Final

from moleport_server.edge.refusals import REASON_PHRASES, Refusal

PAGE: Final = Path("docs/reference/errors.md")

_INTRODUCTION: Final = """\
# Answers of the edge itself

An answer with a header `X-Moleport-Error` comes from the tunnel server, not from the service behind
the tunnel; its value says why. The body is a page for people or JSON (`error`, `code`, `detail`,
`request_id`), as the Accept header asks: HTML only if it is asked for by name. Programs should look
at the code, because the sentences may change.

This page is made from the code; `python -m moleport_server.edge.reference` writes it.

| Code | Status | Retry-After | Problem with | What happened | What to do |
|---|---|---|---|---|---|
"""


def reference() -> str:
    """Return the page."""
    rows = []
    for case in Refusal:
        facts = case.value
        status = f"{facts.status} {REASON_PHRASES[facts.status]}"
        wait = "" if facts.retry_after is None else str(facts.retry_after)
        cells = [f"`{facts.code}`", status, wait, facts.side.value, facts.happened, facts.advice]
        rows.append("| " + " | ".join(cells) + " |\n")
    return _INTRODUCTION + "".join(rows)


if __name__ == "__main__":
    (Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE).write_text(reference(), encoding="utf-8")
