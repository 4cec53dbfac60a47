import asyncio
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.operator_records import attached
from helpers.operator_world import CLUSTER, Crash, Fault, StoredSecret, StoredToken, World
from moleport_operator.credentials import digest, is_well_formed
from moleport_operator.errors import Conflict, OperatorError, ServerUnavailable
from moleport_operator.plan.conditions import find_condition
from moleport_operator.plan.records import Owner, TokenWish
from moleport_operator.resources import (
    FINALIZER,
    FORCE_DELETE,
    ROTATE_REQUESTED,
    Rotation,
    SecretSpec,
    TokenSpec,
)

HOUR = 3600
FAULTS = [fault for fault in Fault if fault is not Fault.NONE]


async def settle(world: World, uid: str, rounds: int = 6) -> None:
    """Run rounds until nothing changes."""
    for _ in range(rounds):
        world.calls.clear()
        await world.round(uid)
        if not {"put_token", "put_credential", "write_secret", "delete_credential"} & set(
            world.calls
        ):
            return


def ready(world: World, uid: str) -> tuple[str, str]:
    condition = find_condition(world.tokens[uid].status, "Ready")
    return condition["status"], condition["reason"]


def spec_of(world: World, uid: str, **changes: Any) -> TokenSpec:
    return msgspec.structs.replace(world.tokens[uid].spec, **changes)


async def test_a_new_token_gets_a_secret_whose_credential_the_server_lets_in() -> None:
    world = World()
    uid = world.create()

    await world.round(uid)

    secret = world.secret_of(uid)
    assert secret is not None
    assert is_well_formed(secret.values["token"])
    assert world.is_served(uid)
    assert ready(world, uid) == ("True", "Issued")
    assert [event.reason for event in world.events] == ["Issued"]


async def test_a_first_issue_takes_these_calls_in_this_order() -> None:
    world = World()
    uid = world.create()

    await world.round(uid)

    assert world.calls == [
        "read_secret",
        "get_token",
        "set_finalizer",
        "put_token",
        "claim_secret",
        "put_credential",
        "write_secret",
        "write_status",
    ]


async def test_a_settled_token_costs_two_reads_and_no_write() -> None:
    world = World()
    uid = world.create()
    await world.round(uid)
    world.calls.clear()

    await world.round(uid)

    assert world.calls == ["read_secret", "get_token"]


async def test_a_settled_token_that_was_just_listed_costs_one_read() -> None:
    world = World()
    uid = world.create()
    await world.round(uid)
    world.calls.clear()
    world.list_tokens()

    await world.round(uid)
    await world.round(uid)

    assert world.calls == ["read_secret", "read_secret", "get_token"]
    assert ready(world, uid) == ("True", "Issued")


async def test_nothing_is_done_on_the_strength_of_a_list() -> None:
    world = World()
    uid = world.create()
    await world.round(uid)
    world.list_tokens()
    world.edit(uid, annotations={ROTATE_REQUESTED: "now"})
    world.calls.clear()

    await world.round(uid)

    assert world.calls[:3] == ["read_secret", "get_token", "put_credential"]


async def test_a_deletion_looks_at_the_server_itself() -> None:
    world = World()
    uid = world.create()
    await world.round(uid)
    world.list_tokens()
    world.delete(uid)
    world.calls.clear()

    await world.round(uid)

    assert world.calls == ["get_token", "delete_token", "set_finalizer"]


async def test_the_secret_of_a_token_carries_what_an_agent_needs() -> None:
    world = World()
    uid = world.create()

    await world.round(uid)

    secret = world.secret_of(uid)
    assert secret is not None
    assert secret.values | {"token": ""} == {
        "type": "moleport",
        "uri": "https://control.tunnels.test",
        "token": "",
        "token-id": uid,
    }


async def test_a_rotation_leaves_the_old_credential_valid_for_the_overlap() -> None:
    world = World()
    uid = world.create(lifetime="3h", rotation=Rotation(overlap="10m"))
    await settle(world, uid)
    first = set(world.valid_digests(uid))

    world.clock.advance(2 * HOUR)
    await settle(world, uid)

    assert world.is_served(uid)
    assert first < world.valid_digests(uid)
    world.clock.advance(600)
    assert len(world.valid_digests(uid)) == 1
    await settle(world, uid)
    assert len(world.server[uid].slots) == 1


async def test_a_new_value_of_the_annotation_rotates_once() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)
    world.edit(uid, annotations={ROTATE_REQUESTED: "monday"})

    await settle(world, uid)
    await settle(world, uid)

    assert world.tokens[uid].status["revision"] == 2
    assert world.tokens[uid].status["lastHandledRotateRequest"] == "monday"
    assert [event.reason for event in world.events] == ["Issued", "Rotated"]


async def test_a_deleted_secret_comes_back_with_a_new_credential_and_an_overlap() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)
    old = set(world.valid_digests(uid))
    del world.secrets["default", "shop"]

    await settle(world, uid)

    assert world.is_served(uid)
    assert old < world.valid_digests(uid)
    world.clock.advance(HOUR)
    await settle(world, uid)
    assert len(world.server[uid].slots) == 1


@pytest.mark.parametrize("value", ["mine", ""], ids=["another credential", "no credential"])
async def test_an_edited_credential_is_replaced_and_the_old_one_ends_at_once(value: str) -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)
    old = set(world.valid_digests(uid))
    world.secrets["default", "shop"].values["token"] = value

    await settle(world, uid)

    assert world.is_served(uid)
    assert not old & world.valid_digests(uid)


async def test_an_older_secret_that_somebody_restored_is_not_served_again() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)
    old = world.secrets["default", "shop"]
    old = replace(old, values=dict(old.values), annotations=dict(old.annotations))
    world.edit(uid, annotations={ROTATE_REQUESTED: "1"})
    await settle(world, uid)
    world.clock.advance(HOUR)
    await settle(world, uid)
    world.secrets["default", "shop"] = replace(old, version=world.number())

    await settle(world, uid)

    assert world.is_served(uid)
    assert digest(old.values["token"]) not in world.valid_digests(uid)


async def test_an_edited_url_is_repaired_without_a_rotation() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)
    world.secrets["default", "shop"].values["uri"] = "https://evil.test"

    await settle(world, uid)

    assert world.secrets["default", "shop"].values["uri"] == "https://control.tunnels.test"
    assert world.tokens[uid].status["revision"] == 1


async def test_a_server_that_lost_its_database_gets_the_same_credential_again() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)
    before = world.secrets["default", "shop"].values["token"]
    world.server.clear()

    await settle(world, uid)

    assert world.is_served(uid)
    assert world.secrets["default", "shop"].values["token"] == before


async def test_a_shorter_lifetime_moves_the_end_without_a_rotation() -> None:
    world = World()
    uid = world.create(rotation=Rotation(mode="Disabled"))
    await settle(world, uid)

    world.edit(uid, spec=spec_of(world, uid, lifetime="2h"))
    await settle(world, uid)

    assert world.server[uid].slots[1].not_after == world.now + 2 * HOUR
    assert world.tokens[uid].status["revision"] == 1
    world.clock.advance(2 * HOUR)
    await settle(world, uid)
    assert ready(world, uid) == ("False", "Expired")


async def test_a_suspended_token_is_suspended_at_the_server_and_kept() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)

    world.edit(uid, spec=spec_of(world, uid, suspend=True))
    await settle(world, uid)

    assert world.server[uid].wish.suspended
    assert ready(world, uid) == ("False", "Suspended")
    assert not find_condition(world.tokens[uid].status, "Stalled")
    world.edit(uid, spec=spec_of(world, uid, suspend=False))
    await settle(world, uid)
    assert world.is_served(uid)


async def test_a_strangers_secret_is_never_touched() -> None:
    world = World()
    uid = world.create(secret=SecretSpec(name="strangers"))

    await world.round(uid)

    assert world.secrets["default", "strangers"].values == {"token": "hers"}
    assert ready(world, uid) == ("False", "SecretNotOwned")
    assert uid not in world.server


async def test_a_strangers_token_is_never_touched() -> None:
    world = World()
    uid = world.create()
    theirs = TokenWish(label="theirs", owner=Owner(cluster="other", namespace="", name="", uid="u"))
    world.server[uid] = StoredToken(theirs, 1)

    await world.round(uid)
    world.delete(uid)
    await world.round(uid)

    assert world.server[uid].wish == theirs
    assert uid not in world.tokens


async def test_a_token_above_its_quota_is_not_issued_and_one_that_was_is_suspended() -> None:
    world = World()
    late, early = world.create("late"), world.create("early")
    await settle(world, early)

    await world.round(late, is_above_quota=True)
    await world.round(early, is_above_quota=True)

    assert ready(world, late) == ("False", "DeniedByPolicy")
    assert late not in world.server
    assert world.server[early].wish.suspended


async def test_a_token_to_which_policies_leave_nothing_keeps_its_credential() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)
    policies = [attached("strict")]
    world.effective = {"access": {"protocols": []}}

    await world.round(uid, policies=policies)

    assert ready(world, uid) == ("False", "DeniedByPolicy")
    condition = find_condition(world.tokens[uid].status, "PolicyApplied")
    assert condition["message"] == "nothing of it is left by strict: without protocols http"
    assert world.is_served(uid)
    assert len(world.server[uid].slots) == 1
    world.effective = {"access": {"protocols": ["http"]}}
    await world.round(uid, policies=policies)
    assert ready(world, uid) == ("True", "Issued")


async def test_a_deletion_revokes_and_leaves_nothing_behind() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)

    world.delete(uid)
    await world.round(uid)

    assert uid not in world.tokens
    assert uid not in world.server
    assert ("default", "shop") not in world.secrets


async def test_retain_keeps_the_token_and_its_label_says_so() -> None:
    world = World()
    uid = world.create(deletion_policy="Retain", secret=SecretSpec(deletion_policy="Orphan"))
    await settle(world, uid)

    world.delete(uid)
    await world.round(uid)

    assert uid not in world.tokens
    assert world.server[uid].wish.label == "retained: default/shop"
    assert ("default", "shop") in world.secrets


async def test_a_deletion_that_cannot_revoke_waits_and_names_the_way_out() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)
    world.delete(uid)
    world.next_fault = lambda: Fault.REFUSED if world.calls[-1] == "get_token" else Fault.NONE

    with pytest.raises(ServerUnavailable):
        await world.round(uid)

    assert ready(world, uid) == ("False", "Revoking")
    assert FORCE_DELETE in find_condition(world.tokens[uid].status, "Ready")["message"]
    world.edit(uid, annotations={FORCE_DELETE: "true"})
    await world.round(uid)
    assert uid not in world.tokens
    assert world.events[-1].is_warning


async def test_a_server_that_is_down_is_told_and_nothing_is_deleted() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)
    secret = dict(world.secrets["default", "shop"].values)
    world.next_fault = lambda: Fault.REFUSED if world.calls[-1] == "get_token" else Fault.NONE

    with pytest.raises(ServerUnavailable):
        await world.round(uid)

    assert ready(world, uid) == ("False", "ServerUnavailable")
    assert world.tokens[uid].status["binding"] == {"name": "shop"}
    assert world.tokens[uid].status["failedAttempts"] == 1
    assert world.secrets["default", "shop"].values == secret
    world.next_fault = lambda: Fault.NONE
    await world.round(uid)
    assert ready(world, uid) == ("True", "Issued")
    assert "failedAttempts" not in world.tokens[uid].status


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.value)
@pytest.mark.parametrize("number", range(8), ids=lambda number: f"at call {number + 1}")
async def test_a_first_issue_heals_from_one_fault_anywhere(fault: Fault, number: int) -> None:
    world = World()
    uid = world.create()
    world.next_fault = lambda: fault if len(world.calls) == number + 1 else Fault.NONE

    try:
        await world.round(uid)
    except (Crash, OperatorError):
        world.next_fault = lambda: Fault.NONE
    await settle(world, uid)

    assert world.is_served(uid)
    assert len(world.server[uid].slots) == 1


CHANGES = st.sampled_from(
    [
        "rotate",
        "suspend",
        "resume",
        "lifetime",
        "forever",
        "wait a minute",
        "wait an hour",
        "lose the secret",
        "edit the secret",
        "lose the database",
        "list the tokens",
        "delete",
        "create",
    ]
)


class Life:
    """A user, a server and time, who do as they like."""

    def __init__(self) -> None:
        self.world = World()
        self.uid = self.world.create(rotation=Rotation(overlap="10m"))
        self.is_clean = True
        """Nobody but the operator has changed Secret or server since a credential was served."""
        self.world.after_call = self.check

    def check(self) -> None:
        """Hold what must be true between any two calls."""
        world = self.world
        assert world.secrets["default", "strangers"].values == {"token": "hers"}
        assert world.server["theirs"].wish.label == "theirs"
        if self.uid not in world.tokens or world.tokens[self.uid].meta.is_deleting:
            return
        is_suspended = world.tokens[self.uid].spec.suspend
        secret = world.secret_of(self.uid)
        if self.is_clean and secret is not None and "token" in secret.values:
            stored = world.server.get(self.uid)
            if not is_suspended and stored is not None and not stored.wish.suspended:
                assert world.is_served(self.uid), "a client that reads the Secret is locked out"

    def change(self, what: str) -> None:
        world, uid = self.world, self.uid
        if what == "create":
            if uid not in world.tokens:
                self.uid = world.create(rotation=Rotation(overlap="10m"))
            return
        if what == "wait a minute":
            world.clock.advance(60)
        elif what == "wait an hour":
            # An operator that sleeps through an end cannot keep it.
            self.is_clean = False
            world.clock.advance(HOUR)
        elif what == "lose the database":
            self.is_clean = False
            world.server = {"theirs": world.server["theirs"]}
        elif what == "list the tokens":
            # However old it is when a round takes it.
            world.list_tokens()
        if uid not in world.tokens:
            return
        if what == "rotate":
            world.edit(uid, annotations={ROTATE_REQUESTED: str(world.number())})
        elif what in {"suspend", "resume"}:
            world.edit(uid, spec=spec_of(world, uid, suspend=what == "suspend"))
        elif what in {"lifetime", "forever"}:
            lifetime = "2h" if what == "lifetime" else None
            world.edit(uid, spec=spec_of(world, uid, lifetime=lifetime))
        elif what == "lose the secret":
            self.is_clean = False
            world.secrets.pop(("default", "shop"), None)
        elif what == "edit the secret":
            self.is_clean = False
            if ("default", "shop") in world.secrets:
                world.secrets["default", "shop"].values["token"] = "mine"
                world.secrets["default", "shop"].version = world.number()
        elif what == "delete":
            world.delete(uid)

    async def round(self) -> None:
        try:
            await self.world.round(self.uid)
        except (Crash, OperatorError):
            return
        self.is_clean = self.uid in self.world.tokens and self.world.is_served(self.uid)


@given(
    steps=st.lists(
        st.tuples(CHANGES, st.lists(st.sampled_from([*FAULTS, *[Fault.NONE] * 8]), max_size=12)),
        max_size=10,
    )
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_there_is_one_valid_credential_in_the_end(
    steps: list[tuple[str, list[Fault]]],
) -> None:
    async def live() -> None:
        life = Life()
        world = life.world
        world.server["theirs"] = StoredToken(TokenWish(label="theirs", owner=None), 1)
        for what, faults in steps:
            life.change(what)
            pending = list(faults)
            world.next_fault = lambda pending=pending: (  # type: ignore[misc]  # bound per step
                pending.pop(0) if pending else Fault.NONE
            )
            await life.round()
        world.next_fault = lambda: Fault.NONE
        for _ in range(3):
            await life.round()
            world.clock.advance(11 * 60)
        await life.round()
        await life.round()

        ours = {uid for uid in world.server if uid != "theirs"}
        token = world.tokens.get(life.uid)
        if token is None or token.meta.is_deleting:
            assert ours == set()
            assert set(world.secrets) == {("default", "strangers")}
            return
        assert ours == {life.uid}
        assert FINALIZER in token.meta.finalizers
        assert len(world.server[life.uid].slots) == 1
        if not token.spec.suspend:
            assert world.is_served(life.uid)
            assert len(world.valid_digests(life.uid)) == 1

    asyncio.run(live())


async def test_a_conflict_ends_the_round_without_a_word_in_the_status() -> None:
    world = World()
    uid = world.create()
    world.next_fault = lambda: Fault.CONFLICT if world.calls[-1] == "put_token" else Fault.NONE

    with pytest.raises(Conflict):
        await world.round(uid)

    assert world.tokens[uid].status == {}


async def test_no_credential_is_in_a_repr_of_what_a_round_passes_around() -> None:
    world = World()
    uid = world.create()
    await settle(world, uid)
    stored: StoredSecret | None = world.secret_of(uid)
    assert stored is not None

    view = await world.read_secret("default", "shop")

    assert stored.values["token"] not in repr(view)
    assert CLUSTER not in stored.values["token"]
