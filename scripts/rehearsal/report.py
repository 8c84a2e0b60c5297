"""Prints the rehearsal's progress and collects its results in a table."""

import time
from dataclasses import dataclass, field

from rich.table import Table


@dataclass
class Report:
    """Prints the rehearsal's progress and collects its results in a table."""

    begun: float = field(default_factory=time.monotonic)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def progress(self, what: str) -> None:
        """Prints a line that begins with the elapsed seconds."""
        print(f"{time.monotonic() - self.begun:4.0f} s  {what}", flush=True)

    def verified(self, what: str, figure: str) -> None:
        """Prints a verified result and adds it to the table."""
        self.rows.append((f"{time.monotonic() - self.begun:.0f} s", what, figure))
        self.progress(f"ok  {what}: {figure}")

    def table(self) -> Table:
        """Returns the table of all verified results."""
        table = Table("Time", "Verified", "Result")
        for row in self.rows:
            table.add_row(*row)
        return table
