from dataclasses import replace
from typing import Any

import pytest

from helpers.operator_records import body
from helpers.operator_world import CLUSTER, StoredSecret, World
from moleport_operator.errors import Conflict, Rejected
from moleport_operator.plan.policy import PolicyWish, ServerPolicy
from moleport_operator.plan.records import Owner
from moleport_operator.policy_reconciler import PolicyOutcome, PolicyReconciler, kind_of
from moleport_operator.resources import FORCE_DELETE, Kind, Meta, TunnelPolicy, read_policy

HASH = "$2y$05$" + "a" * 53
AUTH = {"targetRefs": [], "http": {"auth": {"basic": {"secretRef": {"name": "visitors"}}}}}


class Rig(World):
    """The world of tokens, with the policies of a server."""

    def __init__(self) -> None:
        super().__init__()
        self.wishes: dict[str, PolicyWish] = {}
        self.refuse: Exception | None = None
        self.statuses: list[dict[str, object]] = []
        self.finalizers: list[bool] = []

    async def get_policy(self, policy_id: str) -> ServerPolicy | None:
        wish = self.wishes.get(policy_id)
        return None if wish is None else ServerPolicy(etag=str(hash(wish)), owner=wish.owner)

    async def put_policy(self, policy_id: str, wish: PolicyWish, etag: str | None) -> ServerPolicy:
        if self.refuse is not None:
            raise self.refuse
        self.wishes[policy_id] = wish
        return ServerPolicy(etag=str(hash(wish)), owner=wish.owner)

    async def delete_policy(self, policy_id: str) -> None:
        if self.refuse is not None:
            raise self.refuse
        self.wishes.pop(policy_id, None)

    async def write_status(self, kind: Kind, meta: Meta, status: object) -> None:
        assert isinstance(status, dict)
        self.statuses.append(status)

    async def set_finalizer(self, kind: Kind, meta: Meta, *, is_wanted: bool) -> str:
        self.finalizers.append(is_wanted)
        return "2"

    async def round(  # type: ignore[override]  # of a policy
        self,
        policy: TunnelPolicy,
        attached: int = 1,
        neighbours: dict[str, bytes | None] | None = None,
    ) -> PolicyOutcome:
        reconciler = PolicyReconciler(
            objects=self,
            secrets=self,
            events=self,
            server=self,
            clock=self.clock,
            owner_cluster=CLUSTER,
        )
        return await reconciler.reconcile(
            policy, attached_tokens=attached, neighbours=neighbours or {}
        )

    def reasons(self) -> list[str]:
        conditions = self.statuses[-1]["conditions"]
        assert isinstance(conditions, list)
        return [condition["reason"] for condition in conditions]


def policy(**fields: Any) -> TunnelPolicy:
    return read_policy(body("strict", **({"spec": {"targetRefs": []}} | fields)))


async def test_a_policy_reaches_the_server_after_its_finalizer() -> None:
    rig = Rig()

    await rig.round(policy())

    assert rig.finalizers == [True]
    assert rig.wishes["uid-strict"].owner == Owner(
        cluster=CLUSTER, namespace="default", name="strict", uid="uid-strict"
    )
    assert rig.reasons() == ["Accepted", "Enforced"]


async def test_a_policy_is_changed_when_the_server_had_another_one() -> None:
    rig = Rig()
    edited = {"targetRefs": [], "http": {"requireTLS": True}}

    outcomes = [await rig.round(policy(**fields)) for fields in ({}, {}, {"spec": edited})]

    assert [outcome.is_changed for outcome in outcomes] == [False, False, True]


async def test_a_policy_without_tokens_says_so_and_is_kept_ready() -> None:
    rig = Rig()

    await rig.round(policy(), attached=0)

    assert rig.reasons() == ["TargetNotFound", "Enforced"]


async def test_passwords_are_read_from_their_secret() -> None:
    rig = Rig()
    await rig.round(policy(spec=AUTH))
    assert rig.wishes["uid-strict"].is_auth_unresolved
    assert rig.reasons() == ["SecretNotFound", "Enforced"]

    rig.secrets["default", "visitors"] = StoredSecret("s", 1, {}, {}, {"auth": f"ann:{HASH}"})
    await rig.round(policy(spec=AUTH))

    assert rig.wishes["uid-strict"].users == (("ann", HASH),)


async def test_other_passwords_of_a_policy_that_shares_a_token_are_a_conflict() -> None:
    rig = Rig()
    rig.secrets["default", "visitors"] = StoredSecret("s", 1, {}, {}, {"auth": f"ann:{HASH}"})
    own = (await rig.round(policy(spec=AUTH))).users
    assert rig.reasons() == ["Accepted", "Enforced"]

    await rig.round(policy(spec=AUTH), neighbours={"theirs": b"other", "same": own})

    assert rig.reasons() == ["Accepted", "AuthConflict"]
    assert rig.events[-1].is_warning
    assert "also have theirs:" in rig.events[-1].message
    assert HASH not in str(rig.statuses)


async def test_what_the_server_refuses_is_told_as_invalid() -> None:
    rig = Rig()
    rig.refuse = Rejected("bad", "no such host")

    with pytest.raises(Rejected):
        await rig.round(policy())

    assert rig.reasons() == ["Invalid", "Invalid"]


def leaving(**fields: Any) -> TunnelPolicy:
    return policy(
        deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["moleport.dev/revoke"], **fields
    )


async def test_a_deleted_policy_goes_from_the_server_first() -> None:
    rig = Rig()
    await rig.round(policy())

    await rig.round(leaving())

    assert rig.wishes == {}
    assert rig.finalizers == [True, False]


async def test_a_policy_that_tokens_still_have_waits() -> None:
    rig = Rig()
    await rig.round(policy())
    rig.refuse = Conflict("attached")

    with pytest.raises(Conflict):
        await rig.round(leaving())

    assert rig.finalizers == [True]


async def test_a_strangers_policy_is_left_alone() -> None:
    rig = Rig()
    await rig.round(policy())
    theirs = replace(rig.wishes["uid-strict"], owner=None)
    rig.wishes["uid-strict"] = theirs

    await rig.round(leaving())

    assert rig.wishes == {"uid-strict": theirs}


async def test_a_forced_deletion_asks_nobody() -> None:
    rig = Rig()
    rig.refuse = Conflict("attached")

    await rig.round(leaving(annotations={FORCE_DELETE: "true"}))

    assert rig.finalizers == [False]
    assert rig.events[-1].is_warning


def test_kinds_are_told_apart() -> None:
    assert kind_of(policy()).plural == "tunnelpolicies"
    assert kind_of(policy(namespace="")).plural == "clustertunnelpolicies"
