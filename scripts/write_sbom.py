"""Writes the software bill of materials of the built layer, in CycloneDX 1.6: https://cyclonedx.org/docs/1.6/json/

python -m scripts.write_sbom .aws-sam/build/CatchlightLayer/python .aws-sam/layer.cdx.json
"""

import json
import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.utils import canonicalize_name

from catchlight import __version__

# Some packages have the whole text of their licence in the field for its name.
MAX_LICENSE_NAME_CHARACTERS = 64
LAYER_REFERENCE = "catchlight-layer"


def sbom(layer: Path, version: str) -> dict[str, Any]:
    """Returns the document, which depends on the installed distributions and the version of Catchlight only.

    Raises:
        SystemExit: the folder contains no installed distribution.
    """
    components = sorted(
        (_component(each) for each in distributions(path=[str(layer)])), key=lambda each: str(each["purl"])
    )
    if not components:
        sys.exit(f"{layer} contains no distribution, so there is nothing to list.")
    references = [component["bom-ref"] for component in components]
    root = {"type": "application", "bom-ref": LAYER_REFERENCE, "name": LAYER_REFERENCE, "version": version}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": components,
        "dependencies": [
            {"ref": LAYER_REFERENCE, "dependsOn": references},
            *({"ref": reference} for reference in references),
        ],
    }


def _component(distribution: Distribution) -> dict[str, Any]:
    name, version = distribution.metadata["Name"], distribution.version
    purl = f"pkg:pypi/{quote(canonicalize_name(name))}@{quote(version)}"
    component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return component | _licenses(distribution)


def _licenses(distribution: Distribution) -> dict[str, Any]:
    metadata = distribution.metadata
    if "License-Expression" in metadata:
        return {"licenses": [{"expression": metadata["License-Expression"]}]}
    name = metadata["License"] if "License" in metadata else ""  # noqa: SIM401 - this mapping has no get()
    return {"licenses": [{"license": {"name": name}}]} if 0 < len(name) <= MAX_LICENSE_NAME_CHARACTERS else {}


if __name__ == "__main__":
    layer_folder, target = map(Path, sys.argv[1:])
    target.write_text(json.dumps(sbom(layer_folder, __version__), indent=2) + "\n")
