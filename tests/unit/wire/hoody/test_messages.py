import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moleport_wire.errors import RemoteProtocolError
from moleport_wire.hoody import messages
from moleport_wire.hoody.frames import Code
from moleport_wire.reference import MEMBERS

JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


class Message(Protocol):
    def encode(self) -> bytes: ...


@dataclass
class Case:
    """A message with every member set, its bytes, and what random ones look like."""

    full: Message
    text: str
    decode: Callable[[bytes], Message]
    random: st.SearchStrategy[Any]


TEXT = st.text(max_size=20)
TEXTS = st.lists(TEXT, max_size=3).map(tuple)
COUNT = st.integers(0, 2**53)
WINDOW = st.integers(1, 2**31 - 1)
PORT = st.integers(0, 65535)

CASES = {
    "HELLO": Case(
        messages.Hello(
            version="hoody-tunnel.v2",
            token="s3cret",
            capabilities=("moleport.1", "multi-ws"),
            max_connections=4,
            resume_session_id="S-1",
            agent="moleport 1.0",
            wants_reports=True,
        ),
        '{"version":"hoody-tunnel.v2","auth":{"kind":"bearer","token":"s3cret"},'
        '"capabilities":["moleport.1","multi-ws"],"maxConnections":4,'
        '"resume":{"sessionId":"S-1"},"agent":"moleport 1.0","reports":true}',
        messages.Hello.decode,
        st.builds(
            messages.Hello,
            version=TEXT,
            token=st.none() | TEXT,
            capabilities=TEXTS,
            max_connections=st.integers(1, 99),
            resume_session_id=st.none() | TEXT,
            agent=TEXT,
            wants_reports=st.booleans(),
        ),
    ),
    "HELLO_OK": Case(
        messages.HelloOk(
            session_id="S-1",
            resumed=True,
            resumed_binds=(
                messages.ResumedBind(
                    bind_id=1, kind="tcp", mode="expose", container_port=0, public_url="tcp://h:1"
                ),
            ),
            stream_window=262144,
            session_window=16777216,
            connections_granted=2,
            join_tickets=(messages.JoinTicket(index=1, nonce="n0nce", expires_ms=15000),),
            capabilities=("moleport.1",),
            server="moleport 1.0",
            lease_seconds=60,
        ),
        '{"sessionId":"S-1","resumed":true,"resumedBinds":[{"bindId":1,"kind":"tcp",'
        '"mode":"expose","containerPort":0,"publicUrl":"tcp://h:1"}],"streamWindow":262144,'
        '"sessionWindow":16777216,"connectionsGranted":2,'
        '"joinTickets":[{"index":1,"nonce":"n0nce","expiresMs":15000}],'
        '"capabilities":["moleport.1"],"server":"moleport 1.0","leaseSeconds":60}',
        messages.HelloOk.decode,
        st.builds(
            messages.HelloOk,
            session_id=TEXT,
            resumed=st.booleans(),
            resumed_binds=st.lists(
                st.builds(
                    messages.ResumedBind,
                    bind_id=COUNT,
                    kind=TEXT,
                    mode=TEXT,
                    container_port=PORT,
                    public_url=st.none() | TEXT,
                ),
                max_size=3,
            ).map(tuple),
            stream_window=WINDOW,
            session_window=WINDOW,
            connections_granted=st.integers(1, 16),
            join_tickets=st.lists(
                st.builds(
                    messages.JoinTicket, index=st.integers(1, 15), nonce=TEXT, expires_ms=COUNT
                ),
                max_size=15,
            ).map(tuple),
            capabilities=TEXTS,
            server=TEXT,
            lease_seconds=st.none() | COUNT,
        ),
    ),
    "JOIN": Case(
        messages.Join(session_id="S-1", index=1, nonce="n0nce"),
        '{"sessionId":"S-1","index":1,"nonce":"n0nce"}',
        messages.Join.decode,
        st.builds(messages.Join, session_id=TEXT, index=COUNT, nonce=TEXT),
    ),
    "JOIN_ERR": Case(
        messages.Refusal(code="EXPIRED", message="too late"),
        '{"code":"EXPIRED","message":"too late"}',
        messages.Refusal.decode,
        st.builds(messages.Refusal, code=TEXT, message=st.text(min_size=1, max_size=20)),
    ),
    "BIND": Case(
        messages.Bind(
            client_bind_ref=1,
            kind="http",
            container_port=80,
            label="web",
            takeover=True,
            host="::1",
            hostname="shop.example.com",
            subdomain="shop",
            is_wish=True,
            is_container=True,
            port=20000,
            basic_auth=(messages.BasicUser(user="ada", password_hash="$scrypt$x"),),
            allowed_cidrs=("10.0.0.0/8",),
            host_header="localhost",
        ),
        '{"clientBindRef":1,"kind":"http","mode":"expose","containerPort":80,"label":"web",'
        '"takeover":true,"host":"::1","hostname":"shop.example.com","subdomain":"shop",'
        '"wish":true,"container":true,"port":20000,"basicAuth":[{"user":"ada","hash":"$scrypt$x"}],'
        '"allowedCidrs":["10.0.0.0/8"],"hostHeader":"localhost"}',
        messages.Bind.decode,
        st.builds(
            messages.Bind,
            client_bind_ref=COUNT,
            kind=TEXT,
            mode=TEXT,
            container_port=PORT,
            label=st.none() | TEXT,
            takeover=st.booleans(),
            host=st.none() | TEXT,
            hostname=st.none() | TEXT,
            subdomain=st.none() | TEXT,
            is_wish=st.booleans(),
            is_container=st.booleans(),
            port=st.none() | st.integers(1, 65535),
            basic_auth=st.none()
            | st.lists(
                st.builds(messages.BasicUser, user=TEXT, password_hash=TEXT), max_size=3
            ).map(tuple),
            allowed_cidrs=st.none() | TEXTS,
            host_header=st.none() | TEXT,
        ),
    ),
    "BIND_OK": Case(
        messages.BindOk(
            client_bind_ref=1, bind_id=7, public_url="https://a.example.com", tunnel_id="t"
        ),
        '{"clientBindRef":1,"bindId":7,"containerPort":0,"publicUrl":"https://a.example.com",'
        '"tunnelId":"t"}',
        messages.BindOk.decode,
        st.builds(
            messages.BindOk,
            client_bind_ref=COUNT,
            bind_id=COUNT,
            container_port=PORT,
            public_url=st.none() | TEXT,
            tunnel_id=st.none() | TEXT,
        ),
    ),
    "BIND_ERR": Case(
        messages.BindErr(client_bind_ref=1, code="FORBIDDEN", message="no", is_final=True),
        '{"clientBindRef":1,"code":"FORBIDDEN","message":"no","final":true}',
        messages.BindErr.decode,
        st.builds(
            messages.BindErr,
            client_bind_ref=COUNT,
            code=TEXT,
            message=TEXT,
            is_final=st.booleans(),
        ),
    ),
    "UNBIND": Case(
        messages.Unbind(bind_id=7),
        '{"bindId":7}',
        messages.Unbind.decode,
        st.builds(messages.Unbind, bind_id=COUNT),
    ),
    "UNBIND_ERR": Case(
        messages.UnbindErr(bind_id=7, code="NOT_FOUND", message="not yours"),
        '{"bindId":7,"code":"NOT_FOUND","message":"not yours"}',
        messages.UnbindErr.decode,
        st.builds(messages.UnbindErr, bind_id=COUNT, code=TEXT, message=TEXT),
    ),
    "BIND_REVOKED": Case(
        messages.BindRevoked(bind_id=7, reason="deleted"),
        '{"bindId":7,"reason":"deleted"}',
        messages.BindRevoked.decode,
        st.builds(messages.BindRevoked, bind_id=COUNT, reason=TEXT),
    ),
    "STREAM_OPEN": Case(
        messages.StreamOpen(bind_id=7, peer="[2001:db8::1]:5", window=262144),
        '{"kind":"bytes","bindId":7,"peer":"[2001:db8::1]:5","window":262144}',
        messages.StreamOpen.decode,
        st.builds(
            messages.StreamOpen,
            bind_id=COUNT,
            peer=st.ip_addresses().map(lambda ip: f"[{ip}]:1"),
            window=WINDOW,
        ),
    ),
    "GOAWAY": Case(
        messages.GoAway(code=11, message="invalid token"),
        '{"code":11,"message":"invalid token"}',
        messages.GoAway.decode,
        st.builds(messages.GoAway, code=COUNT, message=TEXT),
    ),
    "REAUTH": Case(
        messages.Reauth(token="s3cret"),
        '{"token":"s3cret"}',
        messages.Reauth.decode,
        st.builds(messages.Reauth, token=TEXT),
    ),
    "DRAIN": Case(
        messages.Drain(deadline_ms=30000, reason="upgrade", server="https://b.example.com"),
        '{"deadlineMs":30000,"reason":"upgrade","server":"https://b.example.com"}',
        messages.Drain.decode,
        st.builds(messages.Drain, deadline_ms=COUNT, reason=TEXT, server=st.none() | TEXT),
    ),
    "REPORT": Case(
        messages.Report(
            requests=(
                messages.ReportedRequest(
                    bind_id=7,
                    method="GET",
                    path="/",
                    status=200,
                    duration_ms=1.2344,
                    peer="192.0.2.1:5",
                ),
            ),
            skipped=3,
        ),
        '{"requests":[[7,"GET","/",200,1.234,"192.0.2.1:5"]],"skipped":3}',
        messages.Report.decode,
        st.builds(
            messages.Report,
            requests=st.lists(
                st.builds(
                    messages.ReportedRequest,
                    bind_id=COUNT,
                    method=TEXT,
                    path=TEXT,
                    status=COUNT,
                    duration_ms=st.integers(0, 10**6).map(lambda n: n / 8),
                    peer=TEXT,
                ),
                max_size=5,
            ).map(tuple),
            skipped=COUNT,
        ),
    ),
}
SAME_SHAPE = {"UNBIND_OK": "UNBIND", "REAUTH_ERR": "JOIN_ERR"}
WRONG: dict[str, list[Any]] = {
    "text": [1, True, [], {}, "x" * 1025, "\ud800"],
    "integer": ["1", 1.5, True, [], -1, 2**53 + 1],
    "flag": [0, "true", []],
    "object": ["x", [], 1],
    "texts": ["x", {}, [1], ["x" * 1025], ["\udfff"], ["x"] * 257],
    "objects": ["x", {}, [1], [[]], [{}] * 257],
    "rows": [
        {},
        [1],
        [[]],
        [["1", "GET", "/", 200, 1, "p"]],
        [[1, "GET", "/", 200, "1", "p"]],
        [[1, "GET", "/", 200, True, "p"]],
        [[1, "GET", "/", 200, float("nan"), "p"]],
        [[1, "GET", "/", 200, float("inf"), "p"]],
        [[1, "\ud800", "/", 200, 1, "p"]],
        [[1, "GET", "/", 200, 1]],
        [[1, "GET", "/", 200, 1, "p"]] * 257,
    ],
}


def case_of(name: str) -> Case:
    return CASES[SAME_SHAPE.get(name, name)]


def members_of(name: str) -> dict[str, Any]:
    members: dict[str, Any] = json.loads(case_of(name).text)
    return members


def raw(members: Any) -> bytes:
    return json.dumps(members).encode()


def refused(name: str, payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        case_of(name).decode(payload)
    assert caught.value.code == Code.PROTOCOL_ERROR


@pytest.mark.parametrize("name", CASES)
def test_a_message_is_encoded_and_decoded_as_specified(name: str) -> None:
    case = CASES[name]

    assert case.full.encode() == case.text.encode()
    if name != "REPORT":  # rounds its milliseconds
        assert case.decode(case.text.encode()) == case.full
    assert case.decode(memoryview(case.text.encode())).encode() == case.text.encode()  # type: ignore[arg-type]  # a Payload


@pytest.mark.parametrize("name", MEMBERS)
def test_the_reference_names_every_member(name: str) -> None:
    assert {member.name for member in MEMBERS[name]} == set(members_of(name))


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25)  # for each of the messages
@given(data=st.data())
def test_any_message_survives_its_way(name: str, data: st.DataObject) -> None:
    message = data.draw(CASES[name].random)

    assert CASES[name].decode(message.encode()) == message


@pytest.mark.parametrize("name", CASES)
def test_unknown_members_are_ignored(name: str) -> None:
    members = members_of(name)

    decoded = case_of(name).decode(raw(members | {"later": {"deep": [1]}, "": None}))

    assert decoded == case_of(name).decode(raw(members))


@pytest.mark.parametrize(
    ("name", "member"),
    [
        pytest.param(name, member, id=f"{name}.{member.name}")
        for name, members in MEMBERS.items()
        for member in members
    ],
)
def test_a_member_is_required_or_optional_as_the_reference_says(name: str, member: Any) -> None:
    members = members_of(name)
    del members[member.name]

    for payload in (raw(members), raw(members | {member.name: None})):
        if member.required:
            refused(name, payload)
        else:
            case_of(name).decode(payload)


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        pytest.param(name, member.name, value, id=f"{name}.{member.name}={str(value)[:12]!a}")
        for name, members in MEMBERS.items()
        for member in members
        if (name, member.name) != ("STREAM_OPEN", "kind")  # there is one kind, and no choice
        for value in WRONG[member.kind]
    ],
)
def test_a_member_of_a_wrong_type_is_refused(name: str, key: str, value: Any) -> None:
    refused(name, raw(members_of(name) | {key: value}))


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        pytest.param("HELLO", "maxConnections", 0, id="no connection"),
        pytest.param("HELLO", "capabilities", ["x"] * 33, id="many capabilities"),
        pytest.param("HELLO", "auth", {"token": 1}, id="token of a wrong type"),
        pytest.param("HELLO", "resume", {}, id="resume without an id"),
        pytest.param("HELLO_OK", "streamWindow", 0, id="no stream window"),
        pytest.param("HELLO_OK", "streamWindow", 2**31, id="large stream window"),
        pytest.param("HELLO_OK", "sessionWindow", 0, id="no session window"),
        pytest.param(
            "HELLO_OK", "joinTickets", [{"index": 0, "nonce": "n", "expiresMs": 1}], id="0"
        ),
        pytest.param(
            "HELLO_OK", "joinTickets", [{"index": 16, "nonce": "n", "expiresMs": 1}], id="16"
        ),
        pytest.param("HELLO_OK", "joinTickets", [{"index": 1, "expiresMs": 1}], id="no nonce"),
        pytest.param("HELLO_OK", "resumedBinds", [{"bindId": 1}], id="half a binding"),
        pytest.param("BIND", "containerPort", 65536, id="container port"),
        pytest.param("BIND", "port", 0, id="port 0"),
        pytest.param("BIND", "port", 65536, id="port 65536"),
        pytest.param("BIND", "basicAuth", [{"user": "a"}], id="user without a hash"),
        pytest.param("BIND", "basicAuth", [{"user": "a", "hash": "h"}] * 33, id="many users"),
        pytest.param("BIND_OK", "containerPort", 65536, id="container port of an answer"),
        pytest.param("STREAM_OPEN", "window", 0, id="no window"),
        pytest.param("STREAM_OPEN", "window", 2**31, id="large window"),
    ],
)
def test_a_value_out_of_its_bounds_is_refused(name: str, key: str, value: Any) -> None:
    refused(name, raw(members_of(name) | {key: value}))


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"{", id="cut"),
        pytest.param(b"[]", id="array"),
        pytest.param(b'"x"', id="text"),
        pytest.param(b"null", id="null"),
        pytest.param(b"\xff\xfe{\x00}\x00", id="UTF-16"),
        pytest.param(b'{"a":"\xff"}', id="not UTF-8"),
        pytest.param(b"\xef\xbb\xbf{}", id="byte order mark"),
        pytest.param(b"[" * 60_000, id="deep"),
        pytest.param(b'{"a":' + b"9" * 5000 + b"}", id="huge number"),
    ],
)
@pytest.mark.parametrize("name", CASES)
def test_what_is_not_a_json_object_in_utf_8_is_refused(name: str, payload: bytes) -> None:
    refused(name, payload)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25)  # for each of the messages
@given(data=st.data())
def test_any_json_is_a_message_or_refused_and_nothing_else(name: str, data: st.DataObject) -> None:
    members = members_of(name)
    for key in data.draw(st.sets(st.sampled_from(sorted(members)))):
        members[key] = data.draw(JSON_LIKE)

    try:
        message = case_of(name).decode(raw(members))
    except RemoteProtocolError:
        return
    assert message.encode()


@pytest.mark.parametrize("name", ["HELLO", "HELLO_OK", "JOIN", "BIND", "REAUTH"])
def test_secrets_are_not_shown(name: str) -> None:
    shown = repr(CASES[name].full)

    for secret in ("s3cret", "n0nce", "$scrypt$x"):
        assert secret not in shown


def test_what_was_not_set_is_not_sent() -> None:
    assert messages.Bind(client_bind_ref=1, kind="tcp").encode() == (
        b'{"clientBindRef":1,"kind":"tcp","mode":"expose","containerPort":0}'
    )
    assert messages.Hello(version="v").encode() == b'{"version":"v","capabilities":[]}'


def test_an_address_that_does_not_exist_is_null() -> None:
    payload = messages.BindOk(client_bind_ref=1, bind_id=2).encode()

    assert json.loads(payload)["publicUrl"] is None


def test_a_refusal_without_a_sentence_shows_its_code() -> None:
    assert messages.Refusal.decode(b'{"code":"EXPIRED"}').message == "EXPIRED"
