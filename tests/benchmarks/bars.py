"""Draws figures and their peers as horizontal bars, in SVG."""

from collections.abc import Iterator, Sequence
from html import escape

from tests.benchmarks.figures import Figure, Spread

WIDTH, LABELS, NUMBERS, BAR, GAP = 900, 330, 230, 16, 14
OURS, THEIRS, MISSED, INK, FAINT = "#2563eb", "#94a3b8", "#dc2626", "#0f172a", "#64748b"


def bars(title: str, figures: Sequence[Figure]) -> str:
    """Returns a picture of the figures that have a peer; each pair of bars has its own scale."""
    pairs = [figure for figure in figures if figure.peer_value]
    height = 44 + len(pairs) * (2 * BAR + GAP + 2)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
        ' font-family="system-ui, sans-serif" font-size="12">'
    )
    parts = [
        svg,
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="26" font-size="15" font-weight="600" fill="{INK}">{escape(title)}</text>',
    ]
    for number, figure in enumerate(pairs):
        parts += _pair(figure, 44 + number * (2 * BAR + GAP + 2))
    return "\n".join([*parts, "</svg>", ""])


def _pair(figure: Figure, top: int) -> Iterator[str]:
    assert figure.peer_value
    longest = max(
        *(figure.value, figure.peer_value),
        *(spread.upper for spread in (figure.spread, figure.peer_spread) if spread),
    )
    scale = (WIDTH - LABELS - NUMBERS) / longest
    colour = MISSED if figure.is_missed else OURS
    ratio = f" · {figure.ratio:.2f} ×" if figure.ratio else ""  # noqa: RUF001
    goal = f" (goal {figure.goal})" if figure.goal else ""
    yield from _bar(figure.name, figure.value, figure.spread, top, scale, colour, f"{figure.unit}{ratio}{goal}")
    yield from _bar(figure.peer, figure.peer_value, figure.peer_spread, top + BAR + 2, scale, THEIRS, figure.unit)


def _bar(
    label: str, value: float, spread: Spread | None, top: int, scale: float, colour: str, unit: str
) -> Iterator[str]:
    middle, end = top + BAR / 2, LABELS + value * scale
    yield f'<text x="{LABELS - 8}" y="{middle + 4}" text-anchor="end" fill="{INK}">{escape(_short(label))}</text>'
    yield f'<rect x="{LABELS}" y="{top}" width="{value * scale:.1f}" height="{BAR}" fill="{colour}"/>'
    text_at = end
    if spread:
        lower, upper = LABELS + spread.lower * scale, LABELS + spread.upper * scale
        text_at = max(end, upper)
        yield (
            f'<path d="M{lower:.1f} {middle}H{upper:.1f}M{lower:.1f} {middle - 4}v8M{upper:.1f} {middle - 4}v8"'
            f' stroke="{INK}" fill="none"/>'
        )
    number = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    yield f'<text x="{text_at + 6:.1f}" y="{middle + 4}" fill="{FAINT}">{number} {escape(unit)}</text>'


def _short(label: str) -> str:
    return label if len(label) <= 52 else f"{label[:51]}…"
