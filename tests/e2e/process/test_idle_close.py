"""Local services close idle connections at the worst moment: a GET never fails, a POST never runs twice.

The edge keeps connections to the service for the next request. The service may close one just when a
request is on its way: nobody can tell whether it was acted on.
"""

import asyncio

import pytest

from helpers.origins import GrudgingOrigin, RawOrigin
from helpers.site import Site
from helpers.visits import Answer, Visitor

HOST = "shop.localhost"
VISITORS = 8
EACH = 40


async def visit(site: Site, method: str, name: str) -> list[Answer]:
    async with await Visitor.connect(site.http_port) as visitor:
        return [
            await visitor.get(
                HOST,
                method=method,
                extra=f"X-Number: {name}x{number}\r\n",
                body=b"order" if method == "POST" else b"",
            )
            for number in range(EACH)
        ]


async def visit_all(site: Site, method: str) -> list[Answer]:
    async with asyncio.TaskGroup() as visits:
        running = [
            visits.create_task(visit(site, method, str(number))) for number in range(VISITORS)
        ]
    return [answer for one in running for answer in one.result()]


@pytest.mark.parametrize("runs_before_close", [False, True], ids=["unread", "acted on"])
@pytest.mark.parametrize("requests_each", [1, 3])
async def test_a_get_never_fails(site: Site, requests_each: int, runs_before_close: bool) -> None:
    grudging = GrudgingOrigin(requests_each=requests_each, runs_before_close=runs_before_close)
    await site.start_server()
    async with RawOrigin(grudging.serve) as service:
        await site.start_agent("http", str(service.port), "--name", "shop", "--quiet")
        answers = await visit_all(site, "GET")

    assert {answer.status for answer in answers} == {200}
    assert len(answers) == VISITORS * EACH
    assert grudging.hangups > VISITORS


@pytest.mark.parametrize("runs_before_close", [False, True], ids=["unread", "acted on"])
async def test_a_post_never_runs_twice_and_a_lost_one_is_told(
    site: Site, runs_before_close: bool
) -> None:
    grudging = GrudgingOrigin(requests_each=3, runs_before_close=runs_before_close)
    await site.start_server()
    async with RawOrigin(grudging.serve) as service:
        await site.start_agent("http", str(service.port), "--name", "shop", "--quiet")
        answers = await visit_all(site, "POST")

    assert max(grudging.runs.values()) == 1
    assert {answer.status for answer in answers} <= {200, 502}
    # Each hang-up costs the one request that met it, and no other.
    assert sum(answer.status == 502 for answer in answers) == grudging.hangups
