"""The tables of `docs/reference/protocol.md`: frames, message members, phases.

The page is prose written by hand with blocks in between that are made from here, so that they cannot
drift: `python -m moleport_wire.reference` writes the blocks, a test fails when the page is not current,
and other tests hold these tables to what `messages` really reads and writes.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from moleport_wire.hoody import frames
from moleport_wire.hoody.frames import Code
from moleport_wire.hoody.session import RECEIVABLE, Phase, Role

PAGE: Final = Path("docs/reference/protocol.md")

Kind = Literal["text", "integer", "flag", "object", "texts", "objects", "rows"]


@dataclass(frozen=True, slots=True)
class FrameRow:
    """One type of frame."""

    direction: str
    stream_id: str
    payload: str
    extension: bool = False
    """Whether it belongs to moleport.1 and not to the base protocol."""


@dataclass(frozen=True, slots=True)
class MemberRow:
    """One member of a message's JSON object."""

    name: str
    kind: Kind
    meaning: str
    required: bool = False
    extension: bool = False


FRAMES: Final[dict[str, FrameRow]] = {
    "HELLO": FrameRow("D→K", "0", "JSON"),
    "HELLO_OK": FrameRow("K→D", "0", "JSON"),
    "BIND": FrameRow("D→K", "0", "JSON"),
    "BIND_OK": FrameRow("K→D", "0", "JSON"),
    "BIND_ERR": FrameRow("K→D", "0", "JSON"),
    "UNBIND": FrameRow("D→K", "0", "JSON"),
    "UNBIND_OK": FrameRow("K→D", "0", "JSON"),
    "UNBIND_ERR": FrameRow("K→D", "0", "JSON"),
    "JOIN": FrameRow("D→K", "0", "JSON"),
    "JOIN_OK": FrameRow("K→D", "0", "JSON, not read by drivers"),
    "JOIN_ERR": FrameRow("K→D", "0", "JSON"),
    "SHARD_MAP": FrameRow("K→D", "0", "reserved: never sent, ignored"),
    "REISSUE_JOIN_TICKETS": FrameRow("K→D", "0", "reserved: never sent, ignored"),
    "STREAM_OPEN": FrameRow("K→D", "n", "JSON"),
    "DATA": FrameRow("both", "n", "0 to 65,536 bytes"),
    "EOF": FrameRow("both", "n", "empty"),
    "RESET": FrameRow("both", "n", "code u16, then a reason in UTF-8 of at most 1,024 bytes"),
    "WINDOW": FrameRow("both", "0 or n", "increment u32, not 0"),
    "STREAM_RESPONSE_HEAD": FrameRow("D→K", "n", "not used by moleport.1: a violation there"),
    "PING": FrameRow("both", "0", "nonce, up to 64 bytes (8 by convention)"),
    "PONG": FrameRow("both", "0", "the nonce of the PING"),
    "GOAWAY": FrameRow("both", "0", "JSON"),
    "BIND_REVOKED": FrameRow("K→D", "0", "JSON"),
    "REAUTH": FrameRow("D→K", "0", "JSON", extension=True),
    "REAUTH_OK": FrameRow("K→D", "0", "JSON `{}`, not read", extension=True),
    "REAUTH_ERR": FrameRow("K→D", "0", "JSON", extension=True),
    "DRAIN": FrameRow("K→D", "0", "JSON", extension=True),
    "REPORT": FrameRow("K→D", "0", "JSON", extension=True),
}

MEMBERS: Final[dict[str, tuple[MemberRow, ...]]] = {
    "HELLO": (
        MemberRow("version", "text", "the subprotocol of this connection", required=True),
        MemberRow("capabilities", "texts", "what the driver can do; at most 32"),
        MemberRow("maxConnections", "integer", "wished connections, the primary included; from 1"),
        MemberRow("resume", "object", "`{sessionId}`: the session to go on with"),
        MemberRow("auth", "object", "`{kind: bearer, token}`: if the upgrade had no credential"),
        MemberRow("agent", "text", "name and version, for people", extension=True),
        MemberRow("reports", "flag", "whether REPORT frames are wanted", extension=True),
    ),
    "HELLO_OK": (
        MemberRow("sessionId", "text", "needed for JOIN and to resume", required=True),
        MemberRow("resumed", "flag", "whether the wished session goes on"),
        MemberRow(
            "resumedBinds",
            "objects",
            "`{bindId, kind, mode, containerPort, publicUrl}` for each binding that it still has",
        ),
        MemberRow("streamWindow", "integer", "first window of kit → driver", required=True),
        MemberRow("sessionWindow", "integer", "session window, each direction", required=True),
        MemberRow("connectionsGranted", "integer", "1 to 16"),
        MemberRow("joinTickets", "objects", "`{index, nonce, expiresMs}`, index 1 to 15"),
        MemberRow("capabilities", "texts", "what the kit accepted of them", extension=True),
        MemberRow("server", "text", "name and version, for people", extension=True),
        MemberRow("leaseSeconds", "integer", "how long bindings wait", extension=True),
    ),
    "JOIN": (
        MemberRow("sessionId", "text", "of HELLO_OK", required=True),
        MemberRow("index", "integer", "of the ticket", required=True),
        MemberRow("nonce", "text", "of the ticket", required=True),
    ),
    "JOIN_ERR": (
        MemberRow("code", "text", "see «Secondaries»"),
        MemberRow("message", "text", "for people"),
    ),
    "BIND": (
        MemberRow("clientBindRef", "integer", "the driver's number for this call", required=True),
        MemberRow("kind", "text", "`http` or `tcp`", required=True),
        MemberRow("mode", "text", "`expose`", required=True),
        MemberRow("containerPort", "integer", "0 to 65535; 0 here", required=True),
        MemberRow("label", "text", "for people"),
        MemberRow("takeover", "flag", "not used by moleport.1"),
        MemberRow("host", "text", "not used by moleport.1"),
        MemberRow("hostname", "text", "http: the whole host name", extension=True),
        MemberRow("subdomain", "text", "http: a label under the first domain", extension=True),
        MemberRow(
            "container",
            "flag",
            "a container port is meant, and no public name or port of its own",
            extension=True,
        ),
        MemberRow("wish", "flag", "another name or port will do as well", extension=True),
        MemberRow("port", "integer", "tcp: the public port, 1 to 65535", extension=True),
        MemberRow("basicAuth", "objects", "`{user, hash}`, at most 32", extension=True),
        MemberRow("allowedCidrs", "texts", "visitors' networks, at most 256", extension=True),
        MemberRow("hostHeader", "text", "http: Host for the local service", extension=True),
    ),
    "BIND_OK": (
        MemberRow("clientBindRef", "integer", "of the BIND", required=True),
        MemberRow("bindId", "integer", "names the binding from now on", required=True),
        MemberRow("containerPort", "integer", "0 here", required=True),
        MemberRow("publicUrl", "text", "the address; null if there is none"),
        MemberRow("tunnelId", "text", "the id in the REST API", extension=True),
    ),
    "BIND_ERR": (
        MemberRow("clientBindRef", "integer", "of the BIND", required=True),
        MemberRow("code", "text", "see «Bindings»", required=True),
        MemberRow("message", "text", "for people", required=True),
        MemberRow("final", "flag", "asking again is pointless", extension=True),
    ),
    "UNBIND": (MemberRow("bindId", "integer", "which binding to give up", required=True),),
    "UNBIND_OK": (MemberRow("bindId", "integer", "of the UNBIND", required=True),),
    "UNBIND_ERR": (
        MemberRow("bindId", "integer", "of the UNBIND", required=True),
        MemberRow("code", "text", "`NOT_FOUND`", required=True),
        MemberRow("message", "text", "for people", required=True),
    ),
    "BIND_REVOKED": (
        MemberRow("bindId", "integer", "which binding is gone", required=True),
        MemberRow("reason", "text", "for people"),
    ),
    "STREAM_OPEN": (
        MemberRow("kind", "text", "`bytes`", extension=True),
        MemberRow("bindId", "integer", "whose visitor", required=True, extension=True),
        MemberRow("peer", "text", "the visitor as `ip:port`, `[ip]:port`", extension=True),
        MemberRow(
            "window", "integer", "first window of driver → kit", required=True, extension=True
        ),
    ),
    "GOAWAY": (
        MemberRow("code", "integer", "see «Codes»"),
        MemberRow("message", "text", "for people"),
    ),
    "REAUTH": (MemberRow("token", "text", "the new secret", required=True, extension=True),),
    "REAUTH_ERR": (
        MemberRow("code", "text", "`INVALID_TOKEN`", extension=True),
        MemberRow("message", "text", "for people", extension=True),
    ),
    "DRAIN": (
        MemberRow("deadlineMs", "integer", "from now", required=True, extension=True),
        MemberRow("reason", "text", "for people", extension=True),
        MemberRow("server", "text", "where to connect; absent: same address", extension=True),
    ),
    "REPORT": (
        MemberRow(
            "requests",
            "rows",
            "`[bindId, method, path, status, milliseconds, peer]`, at most 256",
            required=True,
            extension=True,
        ),
        MemberRow("skipped", "integer", "how many more there were", extension=True),
    ),
}

CODES: Final[dict[Code, str]] = {
    Code.NONE: "nothing went wrong",
    Code.PROTOCOL_ERROR: "a rule of this page was broken",
    Code.INTERNAL: "the sender failed",
    Code.FLOW_CONTROL: "more bytes than credit",
    Code.STREAM_CLOSED: "the link or the session under a stream is gone",
    Code.FRAME_SIZE: "a frame or a message beyond its limit",
    Code.REFUSED: "no such binding, or the local service cannot be reached",
    Code.CANCEL: "whoever wanted it went away",
    Code.CALM_DOWN: "too much, too often, or a reader that holds memory for too long",
    Code.BIND_ERROR: "reserved",
    Code.IDLE_TIMEOUT: "silent or unused for too long",
    Code.AUTH: "the credential is missing, wrong, expired, or may not come from here",
    Code.VERSION_MISMATCH: "no version or capability in common",
    Code.TAKEOVER: "another session took the binding",
    Code.EXHAUSTED: "a limit on sessions is reached",
}


def number_of(frame: str) -> int:
    """Return the number of a frame type by its name."""
    return int(getattr(frames, frame))


def frame_table() -> str:
    """Return the catalogue of frames."""
    rows = [
        "| Frame | Type | Direction | Stream id | Payload | Since |",
        "|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {name} | `0x{number_of(name):02X}` | {row.direction} | {row.stream_id} | {row.payload} "
        f"| {'moleport.1' if row.extension else 'base'} |"
        for name, row in FRAMES.items()
    ]
    return "\n".join(rows)


def member_tables() -> str:
    """Return the members of every message, one table each."""
    blocks = []
    for name, members in MEMBERS.items():
        rows = [
            f"**{name}** `0x{number_of(name):02X}`",
            "",
            "| Member | Type | Required | Since | Meaning |",
            "|---|---|---|---|---|",
        ]
        rows += [
            f"| `{member.name}` | {member.kind} | {'yes' if member.required else ''} "
            f"| {'moleport.1' if member.extension else 'base'} | {member.meaning} |"
            for member in members
        ]
        blocks.append("\n".join(rows))
    return "\n\n".join(blocks)


def code_table() -> str:
    """Return the codes of RESET and GOAWAY."""
    rows = ["| Code | Name | Meaning |", "|---|---|---|"]
    rows += [f"| {code.value} | {code.name} | {text} |" for code, text in CODES.items()]
    return "\n".join(rows)


def phase_table() -> str:
    """Return which control frames each role takes in each phase."""
    rows = ["| Role | Phase | Takes |", "|---|---|---|"]
    names = {number_of(name): name for name in FRAMES}
    for role in Role:
        for phase in Phase:
            taken = ", ".join(names[number] for number in sorted(RECEIVABLE[role, phase]))
            rows.append(f"| {role.value} | {phase.value} | {taken or '—'} |")
    return "\n".join(rows)


BLOCKS: Final = {
    "frames": frame_table,
    "members": member_tables,
    "codes": code_table,
    "phases": phase_table,
}


def render(page: str) -> str:
    """Return the page with its generated blocks made anew.

    Raises:
        ValueError: the page lacks the markers of a block.
    """
    for name, make in BLOCKS.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        before, has_begin, rest = page.partition(begin)
        _, has_end, after = rest.partition(end)
        if not has_begin or not has_end:
            raise ValueError(f"the page has no block named {name}")
        page = f"{before}{begin}{make()}\n{end}{after}"
    return page


def main(path: Path) -> None:
    """Write the blocks of the page at `path`."""
    path.write_text(render(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE)
