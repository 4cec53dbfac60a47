import pytest

from helpers.operator_records import body, policy, token
from moleport_operator.errors import InvalidResource
from moleport_operator.resources import FORCE_DELETE, PortRange, read_token


def test_an_empty_spec_reads_like_the_defaults_of_the_schema() -> None:
    spec = token().spec

    assert spec.access.protocols == ("http",)
    assert spec.rotation.mode == "BeforeExpiry"
    assert (spec.deletion_policy, spec.secret.deletion_policy) == ("Revoke", "Delete")
    assert spec.secret.include_connection_info


def test_fields_are_read_under_the_names_of_the_resource() -> None:
    spec = token(
        spec={
            "access": {
                "protocols": ["tcp"],
                "tcp": {"ports": [{"start": 20000, "end": 20009}]},
                "agentCIDRs": ["10.0.0.0/8"],
            },
            "limits": {"maxTunnels": 3},
            "secret": {"includeConnectionInfo": False},
        }
    ).spec

    assert spec.access.tcp.ports == (PortRange(start=20000, end=20009),)
    assert spec.access.agent_cidrs == ("10.0.0.0/8",)
    assert spec.limits.max_tunnels == 3
    assert not spec.secret.include_connection_info


def test_the_secret_is_named_like_the_token_unless_told() -> None:
    assert token("shop").secret_name == "shop"
    assert token("shop", spec={"secret": {"name": "other"}}).secret_name == "other"


def test_metadata_tells_deletion_finalizer_and_force() -> None:
    meta = token(
        deletionTimestamp="2026-01-01T00:00:00Z",
        finalizers=["moleport.dev/revoke"],
        annotations={FORCE_DELETE: "true"},
    ).meta

    assert (meta.is_deleting, meta.has_finalizer, meta.is_forced) == (True, True, True)


def test_a_policy_without_a_namespace_is_one_of_the_cluster() -> None:
    assert policy(namespace="").kind == "ClusterTunnelPolicy"
    assert policy().kind == "TunnelPolicy"


def test_a_policy_that_speaks_of_http_requires_tls_unless_told() -> None:
    http = policy(spec={"targetRefs": [], "http": {}}).spec.http

    assert http is not None
    assert http.require_tls


def test_a_spec_of_another_schema_is_refused_with_its_path() -> None:
    with pytest.raises(InvalidResource, match=r"limits\.maxTunnels"):
        read_token(body(spec={"limits": {"maxTunnels": "many"}}))
