from moleport_agent.doctor.findings import Outcome, failed, ok, skipped, warning


def test_findings_say_what_to_do_unless_all_is_well() -> None:
    assert ok("tcp", "fine").remedy is None
    assert warning("tcp", "slow", "wait").remedy == "wait"
    assert failed("tcp", "closed", "open it").outcome is Outcome.FAILED
    assert skipped("tls", "tcp").sentence == "not checked: tcp failed"
