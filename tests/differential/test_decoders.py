"""Compares the archiver with Pillow. `python -m tests.differential` also compares it with Chromium."""

from collections import Counter

from tests.differential.comparison import accepted_prefixes, disagreements, pillow
from tests.differential.samples import samples

SAMPLES = list(samples())


def test_there_are_at_least_a_thousand_files() -> None:
    assert len({sample.data for sample in SAMPLES}) >= 1000


def test_images_that_pillow_decodes_completely_are_accepted() -> None:
    figures: Counter[str] = Counter()

    assert disagreements(SAMPLES[::3], [pillow], figures) == []
    assert figures["decoded completely by all decoders"] > 0.7 * figures["files"]


def test_truncated_images_without_all_pixels_are_rejected() -> None:
    figures: Counter[str] = Counter()
    small = [sample for sample in SAMPLES if sample.data is sample.plain and "(17, 31)" in sample.name][::3]

    assert [found for sample in small for found in accepted_prefixes(sample, figures)] == []
    assert figures["prefixes accepted"] > 0
