import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moleport_server.capture.masking import mask_head, mask_target


@pytest.mark.parametrize(
    ("target", "masked"),
    [
        ("/", "/"),
        ("*", "*"),
        ("example.com:443", "example.com:443"),
        ("/a?page=1&q=x", "/a?page=1&q=x"),
        ("/a?token=abc", "/a?token=***"),
        ("/a?TOKEN=abc&b=1", "/a?TOKEN=***&b=1"),
        ("/a?b=1&access_token=abc#frag", "/a?b=1&access_token=***#frag"),
        ("/cb#access_token=abc&state=1", "/cb#access_token=***&state=1"),
        ("/cb?code=abc&state=xyz", "/cb?code=***&state=xyz"),
        ("/a?key=abc&monkey=see", "/a?key=***&monkey=see"),
        ("/a?api_key=abc&apikey=def&x-api-key=g", "/a?api_key=***&apikey=***&x-api-key=***"),
        ("/a?X-Amz-Signature=abc", "/a?X-Amz-Signature=***"),
        ("/a?client_secret=a;b&c=d", "/a?client_secret=***&c=d"),
        ("/a?password=x=y?z&c=d", "/a?password=***&c=d"),
        ("/a?%74oken=abc", "/a?%74oken=***"),
        ("/a;jsessionid=abc?b=1", "/a;jsessionid=***"),
        ("/a?next=/b?token=abc", "/a?next=/b?token=***"),
        ("/a?token=", "/a?token="),
        ("/a?token", "/a?token"),
        ("http://user:pw@h/a?b=1", "http://***@h/a?b=1"),
        ("/tokens/list", "/tokens/list"),
    ],
)
def test_secrets_of_a_target_are_masked(target: str, masked: str) -> None:
    assert mask_target(target) == masked
    assert mask_target(target.encode()) == masked
    assert mask_target(masked) == masked


@pytest.mark.parametrize(
    ("line", "masked"),
    [
        ("Host: example.com", "Host: example.com"),
        ("Accept: text/html;q=0.9, */*", "Accept: text/html;q=0.9, */*"),
        ("Authorization: Bearer abc", "Authorization: Bearer ***"),
        ("authorization:Basic YTpi", "authorization:Basic ***"),
        ("Authorization: abc", "Authorization: ***"),
        ("Authorization: Digest a=b, c=d", "Authorization: Digest ***"),
        ("Proxy-Authorization: Basic YTpi", "Proxy-Authorization: Basic ***"),
        ("Cookie: a=b; theme=dark", "Cookie: a=***; theme=***"),
        ("Cookie: abc", "Cookie: ***"),
        ("Set-Cookie: sid=abc; Path=/; HttpOnly", "Set-Cookie: sid=***; Path=/; HttpOnly"),
        ("X-API-Key: abc", "X-API-Key: ***"),
        ("X-Auth-Token: abc", "X-Auth-Token: ***"),
        ("X-Amz-Security-Token: abc", "X-Amz-Security-Token: ***"),
        ("X-Hub-Signature-256: sha256=abc", "X-Hub-Signature-256: ***"),
        ("Ocp-Apim-Subscription-Key: abc", "Ocp-Apim-Subscription-Key: ***"),
        ("Cf-Access-Jwt-Assertion: abc", "Cf-Access-Jwt-Assertion: ***"),
        ("X-Forwarded-Client-Secret:", "X-Forwarded-Client-Secret:"),
        ("WWW-Authenticate: Basic realm=x", "WWW-Authenticate: Basic realm=x"),
        ("Location: /cb?code=abc&state=1", "Location: /cb?code=***&state=1"),
        ("Location: https://a:b@h/?token=c", "Location: https://***@h/?token=***"),
        ("Referer: https://h/?sid=abc", "Referer: https://h/?sid=***"),
        ("Refresh: 0;url=https://h/?token=abc", "Refresh: 0;url=https://h/?token=***"),
        ("X-Note: token=abc", "X-Note: token=abc"),
    ],
)
def test_secrets_of_a_field_are_masked(line: str, masked: str) -> None:
    head = f"GET / HTTP/1.1\r\n{line}\r\nX-After: 1\r\n\r\n".encode()
    expected = f"GET / HTTP/1.1\r\n{masked}\r\nX-After: 1\r\n\r\n"

    assert mask_head(head) == expected
    assert mask_head(expected.encode()) == expected


@pytest.mark.parametrize(
    ("head", "masked"),
    [
        (b"", ""),
        (b"\r\n\r\n", "\r\n\r\n"),
        (b"GET /?token=a HTTP/1.1\r\n\r\n", "GET /?token=*** HTTP/1.1\r\n\r\n"),
        (b"GET /?token=a", "GET /?token=***"),
        (b"HTTP/1.1 200 Very OK\r\n\r\n", "HTTP/1.1 200 Very OK\r\n\r\n"),
        (b"G / H\r\nCookie: a=b\r\n c=d\r\n\r\n", "G / H\r\nCookie: a=***\r\n c=***\r\n\r\n"),
        (b"G / H\r\n folded\r\n\r\n", "G / H\r\n folded\r\n\r\n"),
        (b"G / H\nCookie: a=b\n\n", "G / H\nCookie: a=***\n\n"),
        (b"G / H\r\nX: y\rCookie: a=b\r\n\r\n", "G / H\r\nX: y\nCookie: a=***\r\n\r\n"),
    ],
    ids=str,
)
def test_heads_of_any_shape_are_masked(head: bytes, masked: str) -> None:
    assert mask_head(head) == masked


@given(st.binary(max_size=300))
def test_masking_takes_any_bytes_and_changes_nothing_twice(head: bytes) -> None:
    once = mask_head(head)

    assert mask_head(once.encode("latin-1")) == once


SECRET = re.compile(r"S3CR3T\w*")
tails = st.text(alphabet="abc=;?%.,:@/ +-_~", max_size=20)


@given(
    name=st.sampled_from(["token", "access_token", "key", "code", "Signature", "my_secret"]),
    mark=st.sampled_from(["/?", "/a?x=1&", "/#", "https://h/p?", "/a;v=1?"]),
    tail=tails,
)
def test_a_secret_value_never_shows(name: str, mark: str, tail: str) -> None:
    # Whatever stands in the value, it stays inside of its parameter.
    target = f"{mark}{name}={tail.replace('&', '').replace('#', '')}S3CR3T"

    assert SECRET.search(mask_target(target)) is None


@given(
    name=st.sampled_from(["Authorization", "cookie", "X-Api-Key", "X-Secret-Thing", "Set-Cookie"]),
    before=st.sampled_from(["", " ", "\t", "Bearer ", " Basic  "]),
)
def test_a_secret_field_never_shows(name: str, before: str) -> None:
    head = f"GET / HTTP/1.1\r\n{name}:{before}S3CR3T\r\n\r\n".encode()

    assert SECRET.search(mask_head(head)) is None
