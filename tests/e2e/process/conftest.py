"""What all process tests share: a site of their own, and its output when they fail."""

from collections.abc import AsyncIterator, Generator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from helpers.origins import WebOrigin
from helpers.site import Site

_SITE = pytest.StashKey[Site]()


@pytest.fixture
async def site(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with Site(tmp_path) as site:
        request.node.stash[_SITE] = site
        yield site


@pytest.fixture
async def origin() -> AsyncIterator[WebOrigin]:
    async with WebOrigin() as origin:
        yield origin


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    site = item.stash.get(_SITE, None)
    if report.failed and site is not None:
        report.sections += [(running.name, str(running)) for running in site.running]
    return report
