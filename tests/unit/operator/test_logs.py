import io
import json
import logging

from moleport_operator import logs


def test_json_lines_have_event_level_and_fields() -> None:
    stream = io.StringIO()
    logs.configure("info", "json", stream=stream)

    logging.getLogger("moleport_operator.x").warning("round failed", extra={"token": "shop"})

    line = json.loads(stream.getvalue())
    assert (line["message"], line["level"], line["token"]) == ("round failed", "WARNING", "shop")


def test_text_lines_show_the_same() -> None:
    stream = io.StringIO()
    logs.configure("info", "text", stream=stream)

    logging.getLogger("moleport_operator.x").warning("round failed", extra={"token": "shop"})

    assert "WARNING moleport_operator.x round failed token='shop'" in stream.getvalue()


def test_kopf_is_held_to_its_warnings() -> None:
    stream = io.StringIO()
    logs.configure("info", "text", stream=stream)

    logging.getLogger("kopf.objects").info("body of something")

    assert stream.getvalue() == ""
