"""Restricts the workers of functions in MiniStack to their artefact; Python imports it first in each process.

MiniStack's workers run in MiniStack's own environment, where packages that the layer lacks could be imported, so that
their absence would go unnoticed.
"""

import importlib.util
import os
import sys
from pathlib import Path

# MiniStack's own process has no layers and needs all installed packages.
if layers := os.environ.get("_LAMBDA_LAYERS_DIRS", ""):
    here = str(Path(__file__).parent)
    sys.path[:] = [path for path in sys.path if path != here and "site-packages" not in Path(path).parts]
    # Only the functions that fetch images and send webhooks have these settings. Here their hosts are on this machine.
    if {"ADDITIONAL_IMAGE_HOSTS", "WEBHOOK_URL"} & os.environ.keys():
        # The worker puts the layer first on the path only later; the sandbox needs it now.
        sys.path[:0] = [str(Path(layer) / "python") for layer in layers.split(os.pathsep)]
        spec = importlib.util.spec_from_file_location("sandbox", os.environ["CATCHLIGHT_SANDBOX"])
        assert spec is not None
        assert spec.loader is not None
        sandbox = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sandbox)
        sandbox.install_local_url_policy(sandbox.parse_image_hosts(os.environ[sandbox.IMAGE_HOSTS_VARIABLE]))
