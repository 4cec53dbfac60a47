"""Take the secrets out of request heads before anybody sees them: pure text in, text out.

Captured heads hold what visitors trusted to somebody else's site. What names itself as a credential
(authorization, cookies, api keys, query values called `token` and the like) is replaced by `***`;
everything else stays as it was, so that a head is still good for finding faults. Masking twice
changes nothing. Values are masked up to the end of their parameter: rather too much than too
little.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

MASK: Final = "***"

_TELLING_WORDS: Final = (
    "token|secret|passw(?:or)?d|passphrase|passcode|pwd|signature|credential|assertion|jwt|otp|"
    "(?:api|access|auth|private|subscription|session)[-_.]?key|session[-_.]?id"
)
_SECRET_PARAMETER: Final = re.compile(
    # Words anywhere in a name (`client_secret`), and short names that are secrets only as a whole.
    rf"{_TELLING_WORDS}|^(?:code|key|sig|auth|authorization|sid|session|hmac|pass|pin|ticket)$",
    re.IGNORECASE,
)
_SECRET_HEADER: Final = re.compile(
    rf"{_TELLING_WORDS}|authoriz|authentication-info|cookie|^(?:x-)?(?:auth|key)$"
)
_URL_HEADERS: Final = frozenset({
    "location", "content-location", "referer", "refresh", "link",
    "x-original-url", "x-original-uri", "x-rewrite-url", "x-forwarded-uri",
})  # fmt: skip

_PARAMETER: Final = re.compile(r"[?&;#]([^=&;#?]*)=")
_PARAMETER_END: Final = re.compile(r"[&#]")
_BARE_CR: Final = re.compile(r"\r(?!\n)")
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_USERINFO: Final = re.compile(r"//[^/?#\s]*@")
_AUTH_SCHEME: Final = re.compile(r"[ \t]*[A-Za-z][A-Za-z0-9-]*[ \t]+(?=[^ \t])")

_Masker = Callable[[str], str]


def mask_target(target: bytes | str) -> str:
    """Return a request target (path and query, or an absolute URL) without its secrets."""
    text = target.decode("latin-1") if isinstance(target, bytes) else target
    return _mask_url(text)


def mask_head(head: bytes) -> str:
    """Return a raw request or response head, start line included, without its secrets."""
    text = head.decode("latin-1")
    if text.count("\r") != text.count("\r\n"):
        # Some receivers take a bare CR for the end of a line, and then a field begins behind it.
        text = _BARE_CR.sub("\n", text)
    start, *lines = text.split("\n")
    masked = [_mask_start_line(start)]
    mask: _Masker | None = None
    for content in lines:
        # A folded line belongs to the field before it. The edge refuses those, a log must not leak.
        if content[:1] in {" ", "\t"}:
            masked.append(content if mask is None else _mask_line_end(mask, content))
            continue
        name, _, value = content.partition(":")
        mask = _masker_of(name.strip().lower())
        masked.append(content if mask is None else f"{name}:{_mask_line_end(mask, value)}")
    return "\n".join(masked)


def _mask_line_end(mask: _Masker, value: str) -> str:
    return mask(value[:-1]) + "\r" if value.endswith("\r") else mask(value)


@lru_cache(maxsize=1024)
def _masker_of(name: str) -> _Masker | None:
    # Cached because a handful of names make up almost all traffic; strangers choose the others.
    if name == "cookie":
        return _mask_cookies
    if name == "set-cookie":
        return _mask_set_cookie
    if name in {"authorization", "proxy-authorization"}:
        return _mask_authorization
    if _SECRET_HEADER.search(name):
        return _mask_whole
    return _mask_url if name in _URL_HEADERS else None


def _mask_start_line(line: str) -> str:
    first, space, rest = line.partition(" ")
    return first + space + _mask_request_target(rest)


def _mask_request_target(rest: str) -> str:
    target, space, version = rest.rpartition(" ")
    return _mask_url(target) + space + version if space else _mask_url(rest)


def _mask_whole(value: str) -> str:
    stripped = value.lstrip(" \t")
    return value[: len(value) - len(stripped)] + MASK if stripped else value


def _mask_authorization(value: str) -> str:
    scheme = _AUTH_SCHEME.match(value)
    return _mask_whole(value) if scheme is None else scheme.group() + MASK


def _mask_cookies(value: str) -> str:
    return ";".join(map(_mask_cookie, value.split(";")))


def _mask_set_cookie(value: str) -> str:
    cookie, semicolon, attributes = value.partition(";")
    return _mask_cookie(cookie) + semicolon + attributes


def _mask_cookie(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not equals:
        return _mask_whole(pair)
    return name + equals + _mask_whole(value)


def _mask_url(text: str) -> str:
    if "@" in text:
        text = _USERINFO.sub(f"//{MASK}@", text)
    kept: list[str] = []
    position = 0
    for parameter in _PARAMETER.finditer(text):
        value_at = parameter.end()
        if parameter.start() < position or not _names_secret(parameter[1]):
            continue
        end = _PARAMETER_END.search(text, value_at)
        value_end = len(text) if end is None else end.start()
        if value_at < value_end:
            kept += (text[position:value_at], MASK)
            position = value_end
    return "".join((*kept, text[position:]))


def _names_secret(name: str) -> bool:
    # `%74oken` is `token` to the application behind us, so it is to us.
    plain = _ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), name) if "%" in name else name
    return _SECRET_PARAMETER.search(plain.strip()) is not None
