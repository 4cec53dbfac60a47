"""The login of rustunnel clients: who gets in, who is sent away for good, who may come back."""

import json
from pathlib import Path

import pytest

from helpers.rustunnel_rig import ADMIN_SECRET, SECRET, rustunnel_rig
from helpers.waiting import until
from moleport_server.agents.rustunnel import session as session_module
from moleport_server.agents.rustunnel.control import MAX_MESSAGE_BYTES, MAX_UNREAD_BYTES
from moleport_server.domain.token import Grant
from moleport_server.errors import StoreError
from moleport_wire.rustunnel import messages


@pytest.mark.parametrize("secret", [SECRET, ADMIN_SECRET], ids=["token", "admin"])
async def test_a_good_token_gets_a_session(secret: str) -> None:
    async with rustunnel_rig(server_name="test") as rig:
        client = rig.client()

        granted = await client.log_in(secret)

        [session] = rig.base.registry.sessions.values()
        assert session.protocol == "rustunnel"
        assert session.agent == "rustunnel/0.3.6"
        assert session.id != str(granted.session_id)
        release = messages.parse_release(granted.server_version)
        assert release is not None
        assert release < (0, 7, 0)
        assert client.authenticated == 1


@pytest.mark.parametrize(
    ("first", "text"),
    [
        (messages.Ping(timestamp=1), "expected Auth frame"),
        (messages.Auth(token="wrong", client_version=""), "invalid token"),
        (messages.Auth(token="", client_version=""), "invalid token"),
    ],
    ids=["another message", "wrong", "empty"],
)
async def test_who_cannot_get_in_is_told_and_closed_behind_it(
    first: messages.Message, text: str, tmp_path: Path
) -> None:
    audit_file = tmp_path / "audit.jsonl"
    async with rustunnel_rig(audit_file=audit_file) as rig:
        client = rig.client()

        client.say(first)

        assert (await client.hear(messages.AuthError)).message == text
        rig.shared.audit.flush()
        line = json.loads(audit_file.read_text())
        assert (line["event"], line["success"]) == ("auth_attempt", False)
        assert "token_id" not in line
        assert client.transport.closed_with is not None
        assert client.authenticated == 0
        assert not rig.base.registry.sessions


@pytest.mark.parametrize(
    "first",
    [b"", b"{", b"\xff", b'{"type":"hello"}', b'{"type":"auth"}', b" " * (MAX_MESSAGE_BYTES + 1)],
)
async def test_who_says_nothing_readable_is_dropped_without_a_word(first: bytes) -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()

        client.say(first)

        assert client.transport.is_aborted
        assert client.heard == []


async def test_who_begins_with_a_text_is_dropped_without_a_word_and_later_texts_are_ignored() -> (
    None
):
    async with rustunnel_rig() as rig:
        rude, late = rig.client(), rig.client()
        await late.log_in(SECRET)

        rude.channel.text_received()
        late.channel.text_received()

        assert rude.transport.is_aborted
        assert rude.heard == []
        assert not late.transport.is_aborted


async def test_who_says_nothing_at_all_is_dropped() -> None:
    async with rustunnel_rig(first_frame_seconds=0.01) as rig:
        client = rig.client()

        await until(lambda: client.transport.is_aborted)

        assert client.heard == []


async def test_an_expired_token_is_told_so() -> None:
    async with rustunnel_rig() as rig:
        await rig.issue("old", token_id="token-2", expires_at=1.0)
        client = rig.client()

        client.say(messages.Auth(token="old", client_version="0.3.6"))

        assert (await client.hear(messages.AuthError)).message == "token has expired"


async def test_a_token_for_other_networks_is_told_so() -> None:
    async with rustunnel_rig() as rig:
        await rig.issue("far", token_id="token-2", grant=Grant(agent_cidrs=()))
        client = rig.client()

        client.say(messages.Auth(token="far", client_version="0.3.6"))

        text = (await client.hear(messages.AuthError)).message
        assert text == "token 'laptop' may not be used from 192.0.2.7"


async def test_guessing_ends_with_another_text() -> None:
    async with rustunnel_rig() as rig:
        for _ in range(4):
            client = rig.client()
            client.say(messages.Auth(token="guess", client_version="0.3.6"))
            text = (await client.hear(messages.AuthError)).message

        assert text == "too many failed auth attempts"


async def test_a_store_that_fails_drops_the_client_which_then_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(digest: str) -> None:
        raise StoreError("the disk is gone")

    async with rustunnel_rig() as rig:
        monkeypatch.setattr(rig.base.store, "find_credential", fail)
        client = rig.client()

        client.say(messages.Auth(token=SECRET, client_version="0.3.6"))

        await until(lambda: client.transport.is_aborted)
        assert client.heard == []


async def test_a_server_that_is_full_drops_the_client_which_then_comes_back() -> None:
    async with rustunnel_rig(registry={"max_sessions": 0}) as rig:
        client = rig.client()

        client.say(messages.Auth(token=SECRET, client_version="0.3.6"))

        await until(lambda: client.transport.is_aborted)
        assert client.heard == []


async def test_a_limit_of_agents_counts_only_those_who_answer() -> None:
    async with rustunnel_rig() as rig:
        await rig.issue("one", token_id="token-2", max_agents=1)
        dead = rig.client()
        await dead.log_in("one")

        client = rig.client()
        await client.log_in("one")

        assert dead.transport.is_aborted
        assert len(rig.base.registry.sessions) == 1


async def test_a_client_waits_longer_for_its_admission_than_it_may_take_to_speak(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "PROBE_SECONDS", 0.3)
    async with rustunnel_rig(first_frame_seconds=0.1) as rig:
        await rig.issue("one", token_id="token-2", max_agents=1)
        dead = rig.client()
        await dead.log_in("one")
        await dead.register()
        dead.attach()

        client = rig.client()
        await client.log_in("one")

        assert dead.transport.is_aborted
        assert not client.transport.is_aborted


async def test_a_client_that_is_lost_while_its_token_is_checked_leaves_nothing() -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()
        client.say(messages.Auth(token=SECRET, client_version="0.3.6"))
        client.lose()

        await until(lambda: rig.base.tasks.count == 0)

        assert not rig.base.registry.sessions
        assert not rig.shared.by_secret


async def test_what_comes_while_the_token_is_checked_is_ignored() -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()
        client.say(messages.Auth(token=SECRET, client_version="0.3.6"))
        client.say(messages.Auth(token="wrong", client_version="0.3.6"))

        await client.hear(messages.AuthOk)

        assert len(client.heard) == 1


@pytest.mark.parametrize(
    ("peer", "address", "known_as"),
    [
        ("192.0.2.7:5000", None, "192.0.2.7:5000"),
        ("192.0.2.7:5000", "198.51.100.3", "198.51.100.3:0"),
        ("192.0.2.7:5000", "2001:db8::1", "[2001:db8::1]:0"),
        ("[2001:db8::1]:5000", "2001:db8::1", "[2001:db8::1]:5000"),
    ],
)
async def test_a_client_behind_a_proxy_is_known_by_its_own_address(
    peer: str, address: str | None, known_as: str
) -> None:
    async with rustunnel_rig() as rig:
        client = rig.client(peer, address=address)
        await client.log_in()

        [session] = rig.base.registry.sessions.values()
        assert session.peer == known_as


async def test_a_client_that_does_not_read_is_dropped() -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()
        await client.log_in()
        assert client.transport.limit == MAX_UNREAD_BYTES

        client.channel.pause_writing()

        assert client.transport.is_aborted
        client.channel.resume_writing()


async def test_huge_messages_are_ignored_after_the_login() -> None:
    async with rustunnel_rig() as rig:
        client = rig.client()
        await client.log_in()

        client.say(messages.Ping(timestamp=1).encode() + b" " * MAX_MESSAGE_BYTES)
        client.say(messages.Ping(timestamp=2))

        assert await client.hear(messages.Pong) == messages.Pong(timestamp=2)
