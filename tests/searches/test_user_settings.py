"""The searches in a shell with hostile AWS settings: they create sessions of boto3."""

from pathlib import Path

from tests.user_settings import run_module


def test_the_races_ignore_hostile_user_settings(tmp_path: Path) -> None:
    run_module("tests.searches.races", "--keys", "1", folder=tmp_path)


def test_the_soak_ignores_hostile_user_settings(tmp_path: Path) -> None:
    run_module("tests.searches.soak", "--tasks", "1", "--state-dir", str(tmp_path / "soak"), folder=tmp_path)


def test_the_search_for_faults_ignores_hostile_user_settings(tmp_path: Path) -> None:
    run_module("tests.searches.faults", "the callback is lost", folder=tmp_path)
