"""A part of the comparison with decoders: Pillow only. `python -m tests.differential` compares with Chromium, too."""

from collections import Counter

from tests.differential.comparison import archived_cuts, disagreements, pillow
from tests.differential.samples import samples

SAMPLES = list(samples())


def test_there_are_a_thousand_files() -> None:
    assert len({sample.data for sample in SAMPLES}) >= 1000


def test_what_pillow_shows_whole_is_archived() -> None:
    figures: Counter[str] = Counter()

    assert disagreements(SAMPLES[::3], [pillow], figures) == []
    assert figures["shown whole by all decoders"] > 0.7 * figures["files"]


def test_no_prefix_without_all_pixels_is_archived() -> None:
    figures: Counter[str] = Counter()
    small = [sample for sample in SAMPLES if sample.data is sample.plain and "(17, 31)" in sample.name][::3]

    assert [found for sample in small for found in archived_cuts(sample, figures)] == []
    assert figures["prefixes archived"] > 0
