import httpx
import pytest

from helpers.control_server import ControlServer
from moleport_agent import http_adapter
from moleport_agent.errors import BadAnswer, ConfigError, ConnectError
from moleport_agent.http_adapter import http_client, read_bounded, translate
from moleport_agent.settings import Secret, ServerSettings

ERRORS = {
    "connect timeout": (httpx.ConnectTimeout("x"), "did not answer within 10 s"),
    "proxy": (httpx.ProxyError("403 Forbidden"), "the proxy did not connect"),
    "refused": (httpx.ConnectError("refused"), "cannot connect to https://a: refused"),
    "silence": (httpx.ReadTimeout("x"), "stopped answering"),
    "garbage": (httpx.RemoteProtocolError("eof"), "broke off: eof"),
    "anything else": (httpx.ReadError(""), "failed: ReadError"),
}


@pytest.mark.parametrize(("error", "sentence"), ERRORS.values(), ids=ERRORS)
def test_an_error_of_the_library_becomes_a_sentence(error: httpx.HTTPError, sentence: str) -> None:
    translated = translate(error, "https://a")

    assert isinstance(translated, ConnectError)
    assert sentence in str(translated)


def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_adapter, "LONGEST_ANSWER_BYTES", 1000)

    with ControlServer() as server:
        server.answer("GET", "/big", "x" * 2000)
        settings = ServerSettings(url=server.url, read_token=lambda: Secret("t"))
        with (
            http_client(settings) as http,
            http.stream("GET", "/big") as response,
            pytest.raises(BadAnswer, match="larger than 1000 bytes"),
        ):
            read_bounded(response)


def test_an_unusable_proxy_is_an_error_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://proxy")
    settings = ServerSettings(url="https://a", read_token=lambda: Secret("t"))

    with pytest.raises(ConfigError, match="proxy variable"):
        http_client(settings)
