from xml.etree import ElementTree

from moleport_bench.figures.base import Better, Column
from moleport_bench.page.numbers import Middle
from moleport_bench.page.plots import Bar, chart
from moleport_bench.peers import PEERS

COLUMN = Column("down", "down", "MB/s", Better.HIGHER, plotted=True)
SVG = "{http://www.w3.org/2000/svg}"


def bars() -> list[Bar]:
    by_name = {peer.name: peer for peer in PEERS}
    return [
        Bar(by_name["direct"], Middle(3000.0, 2000.0, 4000.0, 3)),
        Bar(by_name["moleport-tcp"], Middle(400.0, 400.0, 400.0, 1)),
    ]


def test_a_chart_is_a_document_with_a_bar_per_peer() -> None:
    document = ElementTree.fromstring(chart("Bulk & more", COLUMN, bars()))

    rows = [box for box in document.iter(f"{SVG}rect") if box.get("height") == "16"]
    widths = [float(box.attrib["width"]) for box in rows]
    assert len(rows) == 2
    assert widths[0] / widths[1] == 7.5
    texts = [text.text for text in document.iter(f"{SVG}text")]
    assert "Bulk & more (MB/s), higher is better" in texts
    assert {"direct", "3,000", "moleport-tcp", "400"} <= set(texts)


def test_only_a_range_has_a_whisker() -> None:
    document = ElementTree.fromstring(chart("Bulk", COLUMN, bars()))

    assert len(list(document.iter(f"{SVG}path"))) == 1


def test_nothing_leaves_the_picture() -> None:
    document = ElementTree.fromstring(chart("Bulk", COLUMN, bars()))
    width, height = map(float, document.attrib["viewBox"].split()[2:])

    for box in document.iter(f"{SVG}rect"):
        assert float(box.attrib["x"]) + float(box.attrib["width"]) <= width
        assert float(box.attrib["y"]) + float(box.attrib["height"]) <= height
