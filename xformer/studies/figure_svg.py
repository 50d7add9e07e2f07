"""A figure as SVG: text stays text, nothing is fetched, and on a page its points say their values."""

import io
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from xformer.studies.figure_panels import GROUP, SEED
from xformer.studies.figure_style import RECORD, drawing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def figure_svg(figure: "Figure", name: str) -> str:
    """A figure as SVG; the same figure and name give the same text."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with drawing(RECORD, {"svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def page_svg(figure: "Figure", name: str, label: str) -> str:
    """A figure as a part of an HTML page.

    A point under the pointer says its values with all digits; what is drawn of single runs has the class `seed`; and
    there are no ids but those that the figure refers to, which begin with its name.

    Args:
        figure: what to show.
        name: different for each figure of a page.
        label: what it shows, for whoever does not see it.
    """
    named = [line for axes in figure.axes for line in axes.get_lines() if line.get_gid() in (GROUP, SEED)]
    for number, line in enumerate(named):
        line.set_gid(f"{line.get_gid()}-{number}")
    try:
        root = ElementTree.fromstring(figure_svg(figure, name))
    finally:
        for line in named:
            line.set_gid(str(line.get_gid()).partition("-")[0])
    for number, line in enumerate(named):
        kind = line.get_gid()
        node = root.find(f".//{{{_SVG}}}g[@id='{kind}-{number}']")
        if node is not None:
            node.set("class", str(kind))
            _say_values(node, line)
    _rename_ids(root, name)
    root.attrib.pop("width", None), root.attrib.pop("height", None)
    root.set("role", "img")
    root.set("aria-label", label)
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    return ElementTree.tostring(root, encoding="unicode")


def _say_values(node: ElementTree.Element, line: Any) -> None:
    """Give each marker of a line a title; a line without markers has one."""
    label = str(line.get_label()).removeprefix("_")
    markers = node.findall(f".//{{{_SVG}}}use")
    points = list(zip(line.get_xdata(), line.get_ydata(), strict=True))
    every = line.axes.figure.axes  # of panels with common scales only the outer ones have labels
    x = line.axes.get_xlabel() or every[-1].get_xlabel()
    y = line.axes.get_ylabel() or every[0].get_ylabel()
    if len(markers) != len(points):
        ElementTree.SubElement(node, f"{{{_SVG}}}title").text = label
        return
    for marker, (at, value) in zip(markers, points, strict=True):
        ElementTree.SubElement(marker, f"{{{_SVG}}}title").text = f"{label}\n{x} {float(at):.15g}\n{y} {float(value)!r}"


def _rename_ids(root: ElementTree.Element, name: str) -> None:
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'="#([^"]+)"', text)) | set(re.findall(r"url\(#([^)]+)\)", text))
    for node in root.iter():
        for key, value in list(node.attrib.items()):
            if key == "id":
                node.attrib.pop(key)
                if value in used:
                    node.set(key, f"{name}-{value}")
            elif value.startswith("#"):
                node.set(key, f"#{name}-{value[1:]}") if value[1:] in used and key.endswith("href") else None
            elif "url(#" in value:
                node.set(key, re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", value))
