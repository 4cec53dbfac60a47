"""What every store has to do, whatever it is made of.

Subclass a suite in the tests of an implementation and give it two fixtures: `store`, and `reopen`,
which closes the store and returns it as a restarted server would find it (a store without a file
returns itself).
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from moleport_server.domain.policy import Policy
from moleport_server.domain.token import Credential, Grant, Limits, Owner, Token
from moleport_server.domain.tunnel import BasicCredential, TunnelProtocol
from moleport_server.errors import ConflictError, InvalidRequest, NotFoundError
from moleport_server.store.base import (
    CaptureRow,
    CaptureStore,
    HistoryQuery,
    Lease,
    PolicyRow,
    StateStore,
    StoredSession,
    TokenRow,
    TunnelLogEntry,
)

ReopenState = Callable[[], Awaitable[StateStore]]
ReopenCaptures = Callable[[], Awaitable[CaptureStore]]

NOW = 1_750_000_000.0


def a_token(number: int = 1, **fields: Any) -> Token:
    values: dict[str, Any] = {
        "id": f"token-{number}",
        "label": f"label {number}",
        "created_at": NOW + number,
    }
    return Token(**(values | fields))


def a_credential(number: int = 1, **fields: Any) -> Credential:
    values: dict[str, Any] = {
        "token_id": f"token-{number}",
        "revision": 1,
        "sha256": f"{number:064x}",
    }
    return Credential(**(values | fields))


def a_lease(number: int = 1, **fields: Any) -> Lease:
    values: dict[str, Any] = {
        "tunnel_id": f"tunnel-{number}",
        "protocol": TunnelProtocol.HTTP,
        "address": f"name-{number}.example.com",
        "token_id": None,
        "session_id": f"session-{number}",
        "bind_id": number,
        "settings": "{}",
        "opened_at": NOW,
        "until": None,
    }
    return Lease(**(values | fields))


def a_session(number: int = 1, **fields: Any) -> StoredSession:
    values: dict[str, Any] = {
        "id": f"session-{number}",
        "token_id": None,
        "protocol": "moleport",
        "opened_at": NOW,
    }
    return StoredSession(**(values | fields))


def a_log_entry(number: int = 1, **fields: Any) -> TunnelLogEntry:
    values: dict[str, Any] = {
        "id": f"entry-{number}",
        "tunnel_id": f"tunnel-{number}",
        "protocol": "http",
        "label": f"name-{number}.example.com",
        "session_id": f"session-{number}",
        "token_id": None,
        "token_label": None,
        "registered_at": NOW + number,
    }
    return TunnelLogEntry(**(values | fields))


def a_capture(number: int = 1, **fields: Any) -> CaptureRow:
    values: dict[str, Any] = {
        "id": f"capture-{number}",
        "tunnel_id": "tunnel-1",
        "token_id": "token-1",
        "connection_id": "connection-1",
        "method": "GET",
        "path": f"/{number}?q=%20",
        "status": 200,
        "request_bytes": 0,
        "response_bytes": 12,
        "duration_ms": 3,
        "captured_at": NOW + number,
        "request_head": "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "response_head": "HTTP/1.1 200 OK\r\n\r\n",
        "request_body": None,
        "response_body": "hällo\0 ☃",
    }
    return CaptureRow(**(values | fields))


async def add_tokens(store: StateStore, *numbers: int) -> None:
    for number in numbers:
        await store.create_token(a_token(number), a_credential(number))


def ids(rows: list[TokenRow]) -> list[str]:
    return [row.token.id for row in rows]


RESTRICTED = Grant(
    protocols=(TunnelProtocol.TCP,),
    hostnames=("shop-*", "till.example.com"),
    tcp_ports=((20_000, 20_010), (20_050, 20_050)),
    agent_cidrs=(ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")),
)
NOTHING = Grant(protocols=(), hostnames=(), tcp_ports=(), agent_cidrs=())


EVERY_LIMIT = Limits(
    max_tunnels=3,
    max_agents=0,
    max_connections=7,
    max_connections_per_tunnel=5,
    requests_per_second=0.5,
    burst=9,
    request_body_bytes=1 << 40,
    bandwidth=1 << 20,
    idle_seconds=90.5,
)
OWNER = Owner(cluster="cluster-1", namespace="team-a", name="ci", uid="uid-1")


def a_policy(number: int = 1, **fields: Any) -> Policy:
    return Policy(**({"id": f"policy-{number}"} | fields))


class StateStoreSuite:
    """The conformance tests of `StateStore`."""

    async def test_the_instance_id_stays_with_the_store(
        self, store: StateStore, reopen: ReopenState
    ) -> None:
        before = await store.instance_id()

        store = await reopen()

        assert await store.instance_id() == before
        assert len(before) == 36

    async def test_closing_twice_is_fine(self, store: StateStore) -> None:
        await store.aclose()
        await store.aclose()

    @pytest.mark.parametrize(
        "token",
        [
            pytest.param(a_token(), id="bare"),
            pytest.param(
                a_token(
                    label="läbel 'quoted\"; --",
                    scope="shop-*,till.example.com",
                    grant=RESTRICTED,
                    limits=EVERY_LIMIT,
                    last_used_at=NOW + 0.123456,
                    expires_at=NOW + 3600.25,
                    suspended=True,
                    owner=OWNER,
                    version=7,
                ),
                id="everything set",
            ),
            pytest.param(a_token(label="", scope="", grant=NOTHING), id="nothing allowed"),
        ],
    )
    async def test_a_token_comes_back_as_it_was(
        self, store: StateStore, reopen: ReopenState, token: Token
    ) -> None:
        credential = a_credential(not_after=NOW + 0.5, created_at=NOW - 1, last_used_at=NOW)
        await store.create_token(token, credential)

        store = await reopen()

        row = TokenRow(token=token, credentials=(credential,), tunnel_count=0)
        assert await store.get_token(token.id) == row
        assert await store.list_tokens() == [row]
        assert await store.find_credential(credential.sha256) == (token, credential)

    async def test_unknown_tokens_and_digests_are_none(self, store: StateStore) -> None:
        await add_tokens(store, 1)

        assert await store.get_token("token-2") is None
        assert await store.find_credential(f"{2:064x}") is None

    @pytest.mark.parametrize(
        ("token", "credential"),
        [
            pytest.param(a_token(1), a_credential(1, sha256=f"{9:064x}"), id="same id"),
            pytest.param(a_token(2), a_credential(2, sha256=f"{1:064x}"), id="same digest"),
        ],
    )
    async def test_a_second_token_of_the_same_identity_is_refused_whole(
        self, store: StateStore, token: Token, credential: Credential
    ) -> None:
        await add_tokens(store, 1)

        with pytest.raises(ConflictError):
            await store.create_token(token, credential)

        assert ids(await store.list_tokens()) == ["token-1"]
        assert await store.find_credential(f"{9:064x}") is None

    async def test_a_credential_of_another_token_is_a_bug(self, store: StateStore) -> None:
        with pytest.raises(ValueError, match="another token"):
            await store.create_token(a_token(1), a_credential(2))

    async def test_tokens_are_listed_newest_first_and_ties_by_id(self, store: StateStore) -> None:
        for number, created_at in [(1, 10.0), (3, 20.0), (2, 20.0), (4, 5.0)]:
            await store.create_token(a_token(number, created_at=created_at), a_credential(number))

        assert ids(await store.list_tokens()) == ["token-2", "token-3", "token-1", "token-4"]

    @pytest.mark.parametrize("size", [1, 2, 3, 10**30])
    async def test_pages_of_tokens_join_to_the_whole_list(
        self, store: StateStore, size: int
    ) -> None:
        for number in range(5):
            token = a_token(number, created_at=NOW + number // 2)
            await store.create_token(token, a_credential(number))
        whole = await store.list_tokens()

        pages: list[TokenRow] = []
        while page := await store.list_tokens(
            after=pages[-1].token.id if pages else None, limit=size
        ):
            assert len(page) <= size
            pages += page

        assert pages == whole

    async def test_a_page_of_no_tokens_is_empty(self, store: StateStore) -> None:
        await add_tokens(store, 1)

        assert await store.list_tokens(limit=0) == []
        assert await store.list_tokens(after="token-1") == []

    async def test_a_cursor_that_is_gone_is_refused_instead_of_ending_the_list(
        self, store: StateStore
    ) -> None:
        await add_tokens(store, 1, 2)
        await store.delete_token("token-2")

        with pytest.raises(InvalidRequest):
            await store.list_tokens(after="token-2")

    async def test_the_tunnel_count_is_that_of_all_times(self, store: StateStore) -> None:
        await add_tokens(store, 1, 2)
        for number in range(3):
            await store.add_log_entry(a_log_entry(number, token_id="token-1"))
        await store.close_log_entries(["tunnel-1"], NOW + 9)

        assert {row.token.id: row.tunnel_count for row in await store.list_tokens()} == {
            "token-1": 3,
            "token-2": 0,
        }

    async def test_a_token_may_have_no_credential_yet(self, store: StateStore) -> None:
        await store.create_token(a_token())

        assert await store.get_token("token-1") == TokenRow(
            token=a_token(), credentials=(), tunnel_count=0
        )

    async def test_a_token_is_replaced_at_the_version_that_was_read(
        self, store: StateStore, reopen: ReopenState
    ) -> None:
        await add_tokens(store, 1)
        await store.touch_credentials({("token-1", 1): NOW + 5})
        wish = a_token(label="new", created_at=0.0, suspended=True, owner=OWNER, limits=EVERY_LIMIT)

        answers = [await store.replace_token(wish, version=1) for _ in range(2)]

        store = await reopen()
        assert answers == [True, False]
        row = await store.get_token("token-1")
        assert row is not None
        # When it was made and used is no wish.
        assert row.token == replace(wish, created_at=NOW + 1, last_used_at=NOW + 5, version=2)
        assert [slot.revision for slot in row.credentials] == [1]

    async def test_a_token_that_does_not_exist_is_not_replaced(self, store: StateStore) -> None:
        assert not await store.replace_token(a_token(), version=1)

        assert await store.list_tokens() == []

    async def test_tokens_are_listed_by_the_cluster_that_owns_them(self, store: StateStore) -> None:
        for number in range(1, 5):
            owner = None if number == 1 else replace(OWNER, cluster=f"cluster-{number % 2}")
            await store.create_token(a_token(number, owner=owner))

        assert ids(await store.list_tokens(owner_cluster="cluster-0")) == ["token-4", "token-2"]
        assert ids(await store.list_tokens(owner_cluster="cluster-0", limit=1)) == ["token-4"]
        assert ids(await store.list_tokens(owner_cluster="cluster-0", after="token-4")) == [
            "token-2"
        ]
        assert ids(await store.list_tokens(owner_cluster="nobody")) == []

    async def test_slots_overlap_and_are_emptied_one_by_one(
        self, store: StateStore, reopen: ReopenState
    ) -> None:
        await add_tokens(store, 1)
        second = a_credential(sha256=f"{2:064x}", revision=2, not_after=NOW + 9, created_at=NOW)

        is_new = await store.put_credential(second)

        store = await reopen()
        row = await store.get_token("token-1")
        assert is_new
        assert row is not None
        assert row.credentials == (a_credential(), second)
        assert [await store.delete_credential("token-1", revision) for revision in (1, 1, 3)] == [
            True,
            False,
            False,
        ]
        assert await store.find_credential(a_credential().sha256) is None
        assert await store.find_credential(second.sha256) == (row.token, second)

    async def test_the_same_secret_again_keeps_its_beginning_and_its_use(
        self, store: StateStore
    ) -> None:
        await store.create_token(a_token(), a_credential(created_at=NOW, last_used_at=NOW + 1))

        is_new = await store.put_credential(a_credential(created_at=NOW + 50, not_after=NOW + 99))

        found = await store.find_credential(a_credential().sha256)
        assert not is_new
        assert found is not None
        assert found[1] == a_credential(created_at=NOW, last_used_at=NOW + 1, not_after=NOW + 99)

    async def test_another_secret_in_a_slot_is_a_new_one(self, store: StateStore) -> None:
        await store.create_token(a_token(), a_credential(created_at=NOW, last_used_at=NOW + 1))
        other = a_credential(sha256=f"{8:064x}", created_at=NOW + 50)

        assert not await store.put_credential(other)

        assert await store.find_credential(a_credential().sha256) is None
        found = await store.find_credential(other.sha256)
        assert found is not None
        assert found[1] == other

    async def test_a_digest_is_in_one_slot_only(self, store: StateStore) -> None:
        await add_tokens(store, 1, 2)

        for taken in (
            a_credential(1, revision=2),
            a_credential(2, sha256=a_credential(1).sha256),
        ):
            with pytest.raises(ConflictError):
                await store.put_credential(taken)

        assert await store.find_credential(a_credential(1).sha256) is not None
        assert await store.find_credential(a_credential(2).sha256) is not None

    async def test_a_slot_needs_a_token(self, store: StateStore) -> None:
        with pytest.raises(NotFoundError):
            await store.put_credential(a_credential())

        assert await store.find_credential(a_credential().sha256) is None

    @pytest.mark.parametrize(
        "policy",
        [
            pytest.param(a_policy(), id="bare"),
            pytest.param(
                a_policy(
                    owner=OWNER,
                    protocols=(TunnelProtocol.HTTP,),
                    hostnames=("shop-*", "till.example.com"),
                    tcp_ports=((1, 2), (3, 3)),
                    agent_cidrs=(ip_network("10.0.0.0/8"),),
                    client_cidrs=(ip_network("2001:db8::/32"),),
                    denied_client_cidrs=(ip_network("192.0.2.1/32"),),
                    limits=EVERY_LIMIT,
                    max_lifetime_seconds=3600.5,
                    max_tokens=2,
                    requires_rotation=True,
                    requires_tls=True,
                    basic_auth=(BasicCredential(user="änn", password_hash="$2b$10$x"),),
                    is_auth_unresolved=True,
                    version=3,
                ),
                id="everything set",
            ),
            pytest.param(
                a_policy(
                    protocols=(),
                    hostnames=(),
                    tcp_ports=(),
                    agent_cidrs=(),
                    client_cidrs=(),
                    basic_auth=(),
                ),
                id="nothing allowed",
            ),
        ],
    )
    async def test_a_policy_comes_back_as_it_was(
        self, store: StateStore, reopen: ReopenState, policy: Policy
    ) -> None:
        await store.create_policy(policy)

        store = await reopen()

        assert await store.list_policies() == [PolicyRow(policy=policy, attached_tokens=0)]

    async def test_policies_are_found_by_id_and_by_cluster(self, store: StateStore) -> None:
        for number in (2, 1, 3):
            owner = None if number == 3 else replace(OWNER, cluster=f"cluster-{number}")
            await store.create_policy(a_policy(number, owner=owner))

        async def found(**how: Any) -> list[str]:
            return [row.policy.id for row in await store.list_policies(**how)]

        assert await found() == ["policy-1", "policy-2", "policy-3"]
        assert await found(ids=["policy-3", "policy-9", "policy-1"]) == ["policy-1", "policy-3"]
        assert await found(ids=()) == []
        assert await found(owner_cluster="cluster-2") == ["policy-2"]
        wanted = await store.find_policies(["policy-3", "policy-9", "policy-1"])
        assert wanted == [row.policy for row in await store.list_policies() if row.policy in wanted]
        assert [policy.id for policy in wanted] == ["policy-1", "policy-3"]
        assert await store.find_policies([]) == []

    async def test_a_policy_is_created_once_and_replaced_at_its_version(
        self, store: StateStore
    ) -> None:
        await store.create_policy(a_policy())
        wish = a_policy(requires_tls=True)

        with pytest.raises(ConflictError):
            await store.create_policy(wish)
        answers = [await store.replace_policy(wish, version=1) for _ in range(2)]

        assert answers == [True, False]
        (row,) = await store.list_policies()
        assert row.policy == replace(wish, version=2)

    async def test_a_policy_that_tokens_name_is_counted_and_stays(self, store: StateStore) -> None:
        await store.create_policy(a_policy(1))
        await store.create_policy(a_policy(2))
        for number in (1, 2):
            await store.create_token(a_token(number, policy_ids=("policy-1", "policy-2")))
        await store.replace_token(a_token(2, policy_ids=("policy-2",)), version=1)

        assert [row.attached_tokens for row in await store.list_policies()] == [1, 2]
        with pytest.raises(ConflictError):
            await store.delete_policy("policy-1")

        await store.delete_token("token-1")
        assert [await store.delete_policy("policy-1") for _ in range(2)] == [True, False]

    async def test_a_token_names_no_policy_that_does_not_exist(self, store: StateStore) -> None:
        await store.create_policy(a_policy(1))
        await store.create_token(a_token(1, policy_ids=("policy-1",)))

        with pytest.raises(NotFoundError):
            await store.create_token(a_token(2, policy_ids=("policy-1", "policy-9")))
        with pytest.raises(NotFoundError):
            await store.replace_token(a_token(1, policy_ids=("policy-9",)), version=1)

        (row,) = await store.list_tokens()
        assert row.token.policy_ids == ("policy-1",)

    async def test_deleting_a_token_takes_what_belongs_to_it_and_keeps_history(
        self, store: StateStore, reopen: ReopenState
    ) -> None:
        await add_tokens(store, 1, 2)
        for number in (1, 2):
            owner = f"token-{number}"
            await store.save_session(a_session(number, token_id=owner))
            await store.save_lease(a_lease(number, token_id=owner))
            await store.add_log_entry(a_log_entry(number, token_id=owner))

        assert await store.delete_token("token-1") is True
        assert await store.delete_token("token-1") is False
        store = await reopen()

        assert ids(await store.list_tokens()) == ["token-2"]
        assert await store.find_credential(a_credential(1).sha256) is None
        assert await store.load_sessions() == [a_session(2, token_id="token-2")]
        assert await store.load_leases() == [a_lease(2, token_id="token-2")]
        entries, _ = await store.query_history(HistoryQuery(now=NOW))
        assert [(entry.id, entry.token_id, entry.token_label) for entry in entries] == [
            ("entry-2", "token-2", "label 2"),
            ("entry-1", None, None),
        ]

    async def test_a_use_is_recorded_for_the_slot_and_its_token(
        self, store: StateStore, reopen: ReopenState
    ) -> None:
        await add_tokens(store, 1, 2)

        await store.touch_credentials({("token-1", 1): NOW + 5.5})
        store = await reopen()

        row = await store.get_token("token-1")
        assert row is not None
        assert row.token.last_used_at == NOW + 5.5
        assert [slot.last_used_at for slot in row.credentials] == [NOW + 5.5]
        other = await store.get_token("token-2")
        assert other is not None
        assert other.token.last_used_at is None

    async def test_a_use_never_moves_back(self, store: StateStore) -> None:
        await add_tokens(store, 1)
        await store.touch_credentials({("token-1", 1): NOW + 5})

        await store.touch_credentials({("token-1", 1): NOW + 4})

        row = await store.get_token("token-1")
        assert row is not None
        assert row.token.last_used_at == NOW + 5
        assert row.credentials[0].last_used_at == NOW + 5

    async def test_uses_of_unknown_slots_are_ignored(self, store: StateStore) -> None:
        await add_tokens(store, 1)

        await store.touch_credentials({("token-1", 2): NOW, ("token-9", 1): NOW})
        await store.touch_credentials({})

        row = await store.get_token("token-1")
        assert row is not None
        assert row.token.last_used_at is None

    async def test_a_lease_comes_back_as_it_was(
        self, store: StateStore, reopen: ReopenState
    ) -> None:
        await add_tokens(store, 1)
        leases = [
            a_lease(1, token_id="token-1", settings='{"a": "ü"}', until=NOW + 60.5),
            a_lease(2, protocol=TunnelProtocol.TCP, address="20001", bind_id=2**32 - 1),
        ]
        for lease in leases:
            await store.save_lease(lease)

        store = await reopen()

        loaded = await store.load_leases()
        assert loaded == leases
        assert all(type(lease.protocol) is TunnelProtocol for lease in loaded)

    async def test_a_lease_replaces_the_one_of_its_address(self, store: StateStore) -> None:
        await store.save_lease(a_lease(1, until=NOW))
        taken_over = a_lease(1, tunnel_id="tunnel-9", session_id="session-9")
        other_protocol = a_lease(1, protocol=TunnelProtocol.TCP)

        await store.save_lease(taken_over)
        await store.save_lease(other_protocol)

        assert await store.load_leases() == [taken_over, other_protocol]

    async def test_leases_of_a_deleted_token_are_refused(self, store: StateStore) -> None:
        with pytest.raises(NotFoundError):
            await store.save_lease(a_lease(token_id="token-1"))

        assert await store.load_leases() == []

    async def test_leases_are_deleted_by_tunnel(self, store: StateStore) -> None:
        for number in (1, 2, 3):
            await store.save_lease(a_lease(number))

        await store.delete_leases(["tunnel-1", "tunnel-3", "tunnel-9"])
        await store.delete_leases([])

        assert await store.load_leases() == [a_lease(2)]

    async def test_parking_ends_the_leases_of_one_session(
        self, store: StateStore, reopen: ReopenState
    ) -> None:
        await store.save_lease(a_lease(1, session_id="here"))
        await store.save_lease(a_lease(2, session_id="away"))
        await store.save_lease(a_lease(3, session_id="away"))

        await store.park_leases("away", NOW + 60)
        await store.park_leases("unknown", NOW + 60)
        store = await reopen()

        assert [lease.until for lease in await store.load_leases()] == [None, NOW + 60, NOW + 60]

    async def test_a_session_is_saved_replaced_and_deleted(
        self, store: StateStore, reopen: ReopenState
    ) -> None:
        await store.save_session(a_session(1))
        await store.save_session(a_session(2))
        await store.save_session(a_session(2, protocol="hoody"))
        await store.save_lease(a_lease(1))

        await store.delete_session("session-1")
        await store.delete_session("session-9")
        store = await reopen()

        assert await store.load_sessions() == [a_session(2, protocol="hoody")]
        assert await store.load_leases() == [a_lease(1)]

    async def test_sessions_of_a_deleted_token_are_refused(self, store: StateStore) -> None:
        with pytest.raises(NotFoundError):
            await store.save_session(a_session(token_id="token-1"))

        assert await store.load_sessions() == []

    async def test_the_log_tells_the_label_that_the_token_has_now(
        self, store: StateStore, reopen: ReopenState
    ) -> None:
        await add_tokens(store, 1)
        await store.add_log_entry(a_log_entry(1, token_id="token-1", token_label="stale"))

        store = await reopen()

        entries, total = await store.query_history(HistoryQuery(now=NOW))
        assert entries == [a_log_entry(1, token_id="token-1", token_label="label 1")]
        assert total == 1

    async def test_a_log_entry_of_a_deleted_token_belongs_to_nobody(
        self, store: StateStore
    ) -> None:
        await store.add_log_entry(a_log_entry(1, token_id="token-1", token_label="gone"))

        entries, _ = await store.query_history(HistoryQuery(now=NOW))
        assert entries == [a_log_entry(1)]

    async def test_a_log_entry_is_added_once(self, store: StateStore) -> None:
        await store.add_log_entry(a_log_entry(1))

        with pytest.raises(ConflictError):
            await store.add_log_entry(a_log_entry(1, label="other"))

    async def test_open_log_entries_are_closed_once(
        self, store: StateStore, reopen: ReopenState
    ) -> None:
        for number in (1, 2, 3):
            await store.add_log_entry(a_log_entry(number))
        await store.close_log_entries(["tunnel-1"], NOW + 10)

        await store.close_log_entries(["tunnel-1", "tunnel-2", "tunnel-9"], NOW + 20)
        await store.close_log_entries([], NOW + 30)
        store = await reopen()

        entries, _ = await store.query_history(HistoryQuery(now=NOW, ascending=True))
        assert [entry.unregistered_at for entry in entries] == [NOW + 10, NOW + 20, None]

    async def fill_history(self, store: StateStore) -> None:
        """Durations at NOW + 100: 1: 10, 2: 98 (open), 3: 10, 4: 96 (open), 5: 10."""
        await add_tokens(store, 1)
        rows: list[dict[str, Any]] = [
            {"token_id": "token-1"},
            {"token_id": "token-1", "protocol": "tcp"},
            {"protocol": "tcp"},
            {},
            {"registered_at": NOW + 3},
        ]
        for number, fields in enumerate(rows, start=1):
            await store.add_log_entry(a_log_entry(number, **fields))
        await store.close_log_entries(["tunnel-1"], NOW + 11)
        await store.close_log_entries(["tunnel-3", "tunnel-5"], NOW + 13)

    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            pytest.param({}, [4, 3, 5, 2, 1], id="newest first, ties by id"),
            pytest.param({"ascending": True}, [1, 2, 3, 5, 4], id="oldest first"),
            pytest.param({"sort_by": "colour"}, [4, 3, 5, 2, 1], id="unknown order"),
            pytest.param(
                {"sort_by": "colour", "ascending": True}, [1, 2, 3, 5, 4], id="unknown, ascending"
            ),
            pytest.param({"sort_by": "duration"}, [2, 4, 3, 5, 1], id="longest first"),
            pytest.param(
                {"sort_by": "duration", "ascending": True}, [3, 5, 1, 4, 2], id="shortest first"
            ),
            pytest.param(
                {"sort_by": "protocol", "ascending": True}, [4, 5, 1, 3, 2], id="protocol"
            ),
            pytest.param({"sort_by": "protocol"}, [3, 2, 4, 5, 1], id="protocol, descending"),
            pytest.param({"protocol": "tcp"}, [3, 2], id="of a protocol"),
            pytest.param({"protocol": ""}, [], id="of no protocol"),
            pytest.param({"token_id": "token-1"}, [2, 1], id="of a token"),
            pytest.param({"token_id": "token-9"}, [], id="of an unknown token"),
            pytest.param({"active": True}, [4, 2], id="open"),
            pytest.param({"active": False}, [3, 5, 1], id="closed"),
            pytest.param(
                {"active": True, "protocol": "tcp", "token_id": "token-1"}, [2], id="all filters"
            ),
        ],
    )
    async def test_history_is_filtered_and_ordered(
        self, store: StateStore, fields: dict[str, Any], expected: list[int]
    ) -> None:
        await self.fill_history(store)

        entries, total = await store.query_history(HistoryQuery(now=NOW + 100, **fields))

        assert [entry.id for entry in entries] == [f"entry-{number}" for number in expected]
        assert total == len(expected)

    @pytest.mark.parametrize(
        ("limit", "offset", "expected"),
        [
            (2, 0, [4, 3]),
            (2, 2, [5, 2]),
            (2, 4, [1]),
            (2, 5, []),
            (0, 0, []),
            (-1, -1, []),
            (10**30, 0, [4, 3, 5, 2, 1]),
            (10**30, 10**30, []),
        ],
    )
    async def test_history_comes_in_pages_with_the_number_of_all_rows(
        self, store: StateStore, limit: int, offset: int, expected: list[int]
    ) -> None:
        await self.fill_history(store)

        entries, total = await store.query_history(
            HistoryQuery(now=NOW, limit=limit, offset=offset)
        )

        assert [entry.id for entry in entries] == [f"entry-{number}" for number in expected]
        assert total == 5


class CaptureStoreSuite:
    """The conformance tests of `CaptureStore`; the cap of `store` is `CAP_BYTES`."""

    CAP_BYTES = 256 * 1024

    async def test_a_capture_comes_back_as_it_was(
        self, store: CaptureStore, reopen: ReopenCaptures
    ) -> None:
        rows = [
            a_capture(1),
            a_capture(2, token_id=None, request_body="", response_body=None, duration_ms=0),
        ]
        await store.add_captures(rows)

        store = await reopen()

        assert [await store.get_capture(row.id) for row in rows] == rows
        assert await store.get_capture("capture-9") is None

    async def test_captures_are_listed_newest_first_and_per_tunnel(
        self, store: CaptureStore
    ) -> None:
        await store.add_captures(
            [
                a_capture(1, captured_at=NOW + 2),
                a_capture(2, captured_at=NOW + 1),
                a_capture(3, captured_at=NOW + 2),
                a_capture(4, tunnel_id="tunnel-2"),
            ]
        )

        rows = await store.list_captures("tunnel-1", limit=50)

        assert [row.id for row in rows] == ["capture-3", "capture-1", "capture-2"]
        assert await store.list_captures("tunnel-9", limit=50) == []

    @pytest.mark.parametrize(
        ("limit", "expected"), [(0, 0), (1, 1), (3, 3), (4, 3), (-1, 0), (10**30, 3)]
    )
    async def test_a_limit_bounds_the_list(
        self, store: CaptureStore, limit: int, expected: int
    ) -> None:
        await store.add_captures([a_capture(number) for number in range(3)])

        assert len(await store.list_captures("tunnel-1", limit=limit)) == expected

    async def test_a_batch_may_be_sent_again(self, store: CaptureStore) -> None:
        await store.add_captures([a_capture(1), a_capture(2)])

        await store.add_captures([a_capture(1, status=500), a_capture(3)])

        rows = await store.list_captures("tunnel-1", limit=50)
        assert [(row.id, row.status) for row in rows] == [
            ("capture-3", 200),
            ("capture-2", 200),
            ("capture-1", 500),
        ]

    async def test_an_empty_batch_is_fine(self, store: CaptureStore) -> None:
        await store.add_captures([])

        assert await store.list_captures("tunnel-1", limit=50) == []

    async def test_the_oldest_rows_make_room_for_the_newest(
        self, store: CaptureStore, reopen: ReopenCaptures
    ) -> None:
        body = "x" * 10_000
        for start in range(0, 100, 5):
            await store.add_captures(
                [a_capture(start + number, response_body=body) for number in range(5)]
            )

        store = await reopen()

        rows = await store.list_captures("tunnel-1", limit=1000)
        assert [row.id for row in rows] == [f"capture-{99 - age}" for age in range(len(rows))]
        assert self.CAP_BYTES / 2 < len(rows) * len(body) <= self.CAP_BYTES

    async def test_rows_beyond_the_cap_do_not_stay(self, store: CaptureStore) -> None:
        await store.add_captures([a_capture(1, response_body="x" * 2 * self.CAP_BYTES)])
        await store.add_captures([a_capture(2)])

        rows = await store.list_captures("tunnel-1", limit=50)
        assert rows == [a_capture(2)]

    async def test_text_that_is_no_unicode_does_not_cost_its_batch(
        self, store: CaptureStore
    ) -> None:
        await store.add_captures([a_capture(1), a_capture(2, path="/\udcff"), a_capture(3)])

        rows = await store.list_captures("tunnel-1", limit=50)
        assert [row.id for row in rows] == ["capture-3", "capture-2", "capture-1"]

    async def test_fields_are_independent_of_each_other(self, store: CaptureStore) -> None:
        await store.add_captures([replace(a_capture(1), request_head="a", response_head="b")])

        row = await store.get_capture("capture-1")
        assert row is not None
        assert (row.request_head, row.response_head) == ("a", "b")
