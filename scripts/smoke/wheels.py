"""Checks that the wheels and shared libraries of a layer fit its target machine."""

from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import Distribution
from pathlib import Path

# e_machine, two bytes at offset 18: https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html
_ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "arm64": 183}


def check_tags(distribution: Distribution, python: str, machine: str) -> Iterator[str]:
    """Yields a problem if no tag of a wheel is compatible with this version of Python on this machine."""
    wheel = Parser().parsestr(distribution.read_text("WHEEL") or "")
    tags = wheel.get_all("Tag") or []
    interpreter = f"cp{python.replace('.', '')}"
    if not any(_is_compatible(tag, interpreter, machine) for tag in tags):
        found = ", ".join(tags) or "no tag"
        yield f"{distribution.name}: its wheel is for {found}, not for python{python} on {machine}"


def _is_compatible(tag: str, interpreter: str, machine: str) -> bool:
    python, abi, platform = tag.split("-")
    if platform == "any":
        return python in ("py3", "py2.py3", interpreter)
    return python.startswith("cp3") and abi in (interpreter, "abi3") and platform.endswith(machine)


def check_machine(layer: Path, machine: str) -> Iterator[str]:
    """Yields a problem for each shared library that is not an ELF file for this machine."""
    for path in sorted(layer.rglob("*.so*")):
        header = path.read_bytes()[:20]
        if header[:4] != b"\x7fELF" or int.from_bytes(header[18:20], "little") != _ELF_MACHINES.get(machine):
            yield f"{path.relative_to(layer)}: is not a Linux library for {machine}"
