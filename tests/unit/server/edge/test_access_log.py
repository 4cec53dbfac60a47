from helpers.edge_rig import HOST, edge_rig, get, post


async def test_a_line_tells_who_asked_for_what_and_how_it_went() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(post(b"milk", "X-Request-Id: abc", path="/order?password=s3cret&n=1"))
        await visitor.answer()

        (line,) = (record.__dict__ for record in rig.logged)
        assert line["peer"] == visitor.address
        assert (line["host"], line["method"], line["status"]) == (HOST, "POST", 200)
        assert line["path"].startswith("/order?")
        assert "s3cret" not in line["path"]
        assert (line["request_bytes"], line["response_bytes"]) == (4, 5)
        assert (line["request_id"], line["tunnel"]) == ("abc", str(rig.tunnel.id))
        assert line["duration_ms"] >= 0


async def test_a_request_that_could_not_be_read_has_a_line_too() -> None:
    async with edge_rig() as rig, rig.visitor() as visitor:
        visitor.send(get(host="a@b"))
        await visitor.answer()

        (line,) = (record.__dict__ for record in rig.logged)
        assert (line["status"], line["tunnel"]) == (400, "")
