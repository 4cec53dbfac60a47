import pytest
from aiohttp import web

from helpers.clock import FakeClock
from helpers.kube_api import NAMESPACES, KubeApi
from helpers.kube_client import open_client
from moleport_operator.app import Readiness, cluster_id, connection_facts
from moleport_operator.breaker import FAILURES_TO_OPEN, Breaker
from moleport_operator.errors import ConfigError
from moleport_operator.server_bodies import ServerFacts
from moleport_operator.settings import OperatorSettings, ServerAccess

ACCESS = ServerAccess(url="http://server", token_file="/nowhere")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("is_synced", "is_down", "namespaces", "is_ready", "says"),
    [
        (False, False, (), False, "listed"),
        (True, True, (), False, "the tunnel server is down: away"),
        (True, False, (), True, "ok"),
        (True, False, ("a",), True, "ClusterTunnelPolicies are not watched"),
    ],
    ids=["starting", "server down", "all is well", "one namespace"],
)
def test_readiness_says_what_is_missing(
    is_synced: bool, is_down: bool, namespaces: tuple[str, ...], is_ready: bool, says: str
) -> None:
    breaker = Breaker(FakeClock())
    readiness = Readiness(breaker, OperatorSettings(server=ACCESS, namespaces=namespaces))
    readiness.is_synced = is_synced
    for _ in range(FAILURES_TO_OPEN if is_down else 0):
        breaker.failed("away")

    ready, text = readiness.tell()

    assert ready == is_ready
    assert says in text


def test_an_operator_that_stands_by_is_ready_and_says_so() -> None:
    readiness = Readiness(Breaker(FakeClock()), OperatorSettings(server=ACCESS, lease="a/b"))

    ready, text = readiness.tell()

    assert ready
    assert "stands by" in text


async def test_the_cluster_is_known_by_its_oldest_namespace() -> None:
    async with KubeApi() as api, open_client(api) as kube:
        found = await cluster_id(kube)
        namespace = api.get(NAMESPACES, "kube-system")

    assert namespace is not None
    assert found == namespace["metadata"]["uid"]


async def test_a_cluster_that_may_not_be_known_needs_a_name() -> None:
    async def refuse(_: object) -> web.Response:
        return web.json_response({"message": "no"}, status=403)

    async with KubeApi() as api, open_client(api) as kube:
        api.before = refuse
        with pytest.raises(ConfigError, match="--owner-id"):
            await cluster_id(kube)


@pytest.mark.parametrize(
    ("domains", "port", "agent_url", "url"),
    [
        (("t.test", "u.test"), 443, None, "https://control.t.test"),
        (("t.test",), 8443, None, "https://control.t.test:8443"),
        ((), None, None, "https://control.localhost"),
        (("t.test",), 443, "https://mine", "https://mine"),
    ],
)
def test_agents_are_told_the_way_to_the_server(
    domains: tuple[str, ...], port: int | None, agent_url: str | None, url: str
) -> None:
    facts = ServerFacts(instance_id="i", version="1", domains=domains, https_port=port)

    found = connection_facts(OperatorSettings(server=ACCESS, agent_url=agent_url), facts)

    assert found.agent_url == url
    assert found.ca_pem is None
