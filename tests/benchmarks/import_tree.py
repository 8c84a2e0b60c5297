"""Draws the import tree with times, as an icicle chart of `python -X importtime`, in SVG."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape

WIDTH, ROW, LEFT, TOP = 1100, 22, 10, 44
# Narrower boxes are omitted.
MIN_PIXELS = 3
COLOURS = {
    "catchlight": "#2563eb",
    "app": "#2563eb",
    "pydantic": "#9333ea",
    "pydantic_core": "#9333ea",
    "annotated_types": "#9333ea",
    "typing_inspection": "#9333ea",
    "botocore": "#d97706",
    "jmespath": "#d97706",
    "dateutil": "#d97706",
    "urllib3": "#059669",
    "certifi": "#059669",
}
OTHER, INK = "#64748b", "#0f172a"
_LINE = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \| (\s*)(\S+)")


@dataclass
class Node:
    """A module, and the modules that it was the first to import."""

    name: str
    milliseconds: float  # including its own imports
    children: list["Node"] = field(default_factory=list)


def read_import_times(text: str) -> Node:
    """Returns the tree of `app`, the last top-level import, with all modules loaded after it.

    Python prints a module after its import: below the modules that it imports, which are indented more.
    """
    unfinished: list[tuple[int, Node]] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        _, cumulative, indent, name = found.groups()
        depth = len(indent)
        children = []
        while unfinished and unfinished[-1][0] > depth:
            children.append(unfinished.pop()[1])
        unfinished.append((depth, Node(name, int(cumulative) / 1000, children[::-1])))
    top = [node for _, node in unfinished]
    begin = next(number for number, node in enumerate(top) if node.name == "app")
    return Node("all", sum(node.milliseconds for node in top[begin:]), top[begin:])


def import_tree(title: str, root: Node) -> str:
    """Returns the picture: a module's width is its time, its imports are below it."""
    scale = (WIDTH - 2 * LEFT) / root.milliseconds
    boxes = list(_boxes(root.children, LEFT, 0, scale))
    depth = 1 + max(row for row, *_ in boxes)
    height = TOP + depth * ROW + 34
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="system-ui, sans-serif" font-size="11">'
    )
    parts = [
        svg,
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="26" font-size="15" font-weight="600" fill="{INK}">{escape(title)}</text>',
    ]
    for row, left, width, node in boxes:
        top = TOP + row * ROW
        colour = COLOURS.get(node.name.partition(".")[0], OTHER)
        text = f"{node.name} {node.milliseconds:.1f} ms"
        parts.append(
            f'<g><title>{escape(text)}</title><rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 2}"'
            f' fill="{colour}" stroke="#ffffff" stroke-width="0.5"/>'
        )
        letters = int(width / 6.2) - 1
        if letters >= 4:
            label = text if len(text) <= letters else node.name.rpartition(".")[2]
            label = label if len(label) <= letters else f"{label[: letters - 1]}…"
            parts.append(f'<text x="{left + 4:.1f}" y="{top + 14}" fill="#ffffff">{escape(label)}</text>')
        parts.append("</g>")
    # Imports through importlib.import_module, which pydantic uses for its own modules, are not recorded.
    note = (
        "The width is the import time; imported modules are below. -X importtime adds some time itself. Modules that"
        " are imported by name, such as parts of pydantic, are included in the time of their importer."
    )
    parts.append(f'<text x="{LEFT}" y="{height - 12}" fill="{OTHER}">{note}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _boxes(nodes: list[Node], left: float, row: int, scale: float) -> Iterator[tuple[int, float, float, Node]]:
    for node in nodes:
        width = node.milliseconds * scale
        if width >= MIN_PIXELS:
            yield row, left, width, node
            yield from _boxes(node.children, left, row + 1, scale)
        left += width
