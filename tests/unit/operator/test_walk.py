from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_operator.errors import OperatorError, Rejected, ServerUnavailable
from moleport_operator.plan.records import Owner, Usage
from moleport_operator.queue import Key
from moleport_operator.server_bodies import ListedToken
from moleport_operator.walk import MOST_PAGES, Walk

OURS = "cluster-1"


def token(name: str) -> Key:
    return Key("tunneltokens", "default", name)


class List:
    """A server's list of names; a page ends where it is told to fail."""

    def __init__(self, *names: str) -> None:
        self.names = list(names)
        self.error: OperatorError | None = None
        self.pages = 0

    async def look_ahead(
        self, owner_cluster: str, *, after: str | None, limit: int
    ) -> tuple[list[ListedToken], str | None]:
        assert owner_cluster == OURS
        self.pages += 1
        if self.error is not None:
            raise self.error
        if after is not None and after not in self.names:
            raise Rejected("invalid", "the cursor names no token")
        start = 0 if after is None else self.names.index(after) + 1
        names = self.names[start : start + limit]
        rows = [
            ListedToken(
                id=name,
                label="",
                owner=Owner(cluster=OURS, namespace="default", name=name, uid=name),
                usage=Usage(),
            )
            for name in names
        ]
        return rows, names[-1] if len(names) == limit else None


async def walked(walk: Walk, size: int) -> list[list[Key]]:
    groups = []
    while group := await walk.group(size):
        groups.append(group)
    return groups


async def test_tokens_come_in_the_order_of_the_servers_list() -> None:
    names = [f"t-{number}" for number in range(12)]
    server = List(*reversed(names))
    walk = Walk(server, OURS, [token(name) for name in names])

    groups = await walked(walk, 4)

    assert [[key.name for key in group] for group in groups] == [
        ["t-11", "t-10", "t-9", "t-8"],
        ["t-7", "t-6", "t-5", "t-4"],
        ["t-3", "t-2", "t-1", "t-0"],
    ]
    assert server.pages == 3


async def test_policies_come_first_and_what_the_list_lacks_comes_last() -> None:
    policy = Key("tunnelpolicies", "default", "strict")
    names = [f"t-{number}" for number in range(6)]
    walk = Walk(List("t-5", "t-4", "nobody-knows-it"), OURS, [*map(token, names), policy])

    groups = await walked(walk, 7)

    assert groups == [[policy, *map(token, ["t-5", "t-4", "t-0", "t-1", "t-2", "t-3"])]]


async def test_a_group_of_a_few_is_not_worth_a_list() -> None:
    server = List("a", "b", "c")
    walk = Walk(server, OURS, map(token, "abc"))

    assert await walked(walk, 3) == [[*map(token, "abc")]]
    assert server.pages == 0


@pytest.mark.parametrize(
    "error", [ServerUnavailable("away"), Rejected("invalid", "no")], ids=["away", "rejected"]
)
async def test_tokens_come_also_while_the_server_lists_nothing(error: OperatorError) -> None:
    names = [f"t-{number}" for number in range(8)]
    server = List(*names)
    server.error = error
    walk = Walk(server, OURS, map(token, names))

    first = await walk.group(4)
    server.error = None
    rest = await walked(walk, 4)

    assert sorted([*first, *(key for group in rest for key in group)]) == [*map(token, names)]


async def test_a_walk_whose_place_in_the_list_was_deleted_begins_to_list_anew() -> None:
    names = [f"t-{number}" for number in range(12)]
    server = List(*names)
    walk = Walk(server, OURS, map(token, names))

    first = await walk.group(4)
    server.names.remove("t-3")
    second = await walk.group(4)
    third = await walk.group(4)

    assert sorted(first + second + third) == sorted(map(token, names))
    assert server.pages > 2


async def test_a_list_of_strangers_tokens_is_not_read_to_its_end() -> None:
    names = [f"t-{number}" for number in range(4)]
    server = List(*(f"theirs-{number}" for number in range(1000)), *names)
    walk = Walk(server, OURS, map(token, names))

    assert await walked(walk, 4) == [[*map(token, names)]]
    assert server.pages == MOST_PAGES


@given(
    known=st.sets(st.integers(0, 30)),
    held=st.lists(st.integers(0, 30), unique=True),
    size=st.integers(1, 12),
    failures=st.sets(st.integers(1, 12)),
    gone=st.dictionaries(st.integers(0, 5), st.integers(0, 30)),
)
async def test_every_key_comes_exactly_once_whatever_the_list_does(
    known: set[int], held: list[int], size: int, failures: set[int], gone: dict[int, int]
) -> None:
    class Unreliable(List):
        async def look_ahead(
            self, owner_cluster: str, *, after: str | None, limit: int
        ) -> tuple[list[ListedToken], str | None]:
            self.error = ServerUnavailable("away") if self.pages + 1 in failures else None
            name = str(gone.get(self.pages))
            if name in self.names:
                self.names.remove(name)
            return await super().look_ahead(owner_cluster, after=after, limit=limit)

    keys = [token(str(number)) for number in known]
    walk = Walk(Unreliable(*map(str, held)), OURS, keys)

    groups = await walked(walk, size)

    assert sorted(key for group in groups for key in group) == sorted(keys)
    assert all(len(group) <= MOST_PAGES * size for group in groups)
