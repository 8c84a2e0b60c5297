"""Compares the archiver with Pillow and headless Chromium on all generated files, and with Pillow on truncated files.

The truncated files are all prefixes of the plain files of 17 by 31 pixels.

    python -m tests.differential
"""

import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from local.demo.chromium import chromium, find_chromium
from tests.differential.comparison import accepted_prefixes, disagreements, in_browser, pillow
from tests.differential.samples import samples


class _EmptyPage(BaseHTTPRequestHandler):
    """Serves an empty page: browsers compute digests only in secure contexts, such as pages of a loopback server."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parent's name
        pass


def main() -> int:
    path = find_chromium()
    if path is None:
        sys.stderr.write("Chromium is not installed; scripts/install-chromium installs it.\n")
        return 1
    figures: Counter[str] = Counter()
    files = list(samples())
    with ThreadingHTTPServer(("127.0.0.1", 0), _EmptyPage) as server, chromium(path) as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        found = disagreements(files, [pillow, in_browser(page.evaluate)], figures)
        server.shutdown()
    for sample in files:
        if sample.data is sample.plain and "(17, 31)" in sample.name:
            found += accepted_prefixes(sample, figures)
    counts = ", ".join(f"{number} {name}" for name, number in figures.items())
    sys.stdout.write("\n".join([*found, f"{len(found)} disagreements; {counts}\n"]))
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
