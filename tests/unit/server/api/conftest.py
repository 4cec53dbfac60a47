from collections.abc import AsyncIterator

import pytest

from helpers.api import Api, ApiWorld


@pytest.fixture
def world() -> ApiWorld:
    return ApiWorld()


@pytest.fixture
async def api(world: ApiWorld) -> AsyncIterator[Api]:
    async with world.serving() as served:
        yield served
