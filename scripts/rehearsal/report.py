"""Says what goes on while it goes on, and all of it in a table at the end."""

import time
from dataclasses import dataclass, field

from rich.table import Table


@dataclass
class Report:
    """Says what goes on while it goes on, and all of it in a table at the end."""

    begun: float = field(default_factory=time.monotonic)
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def say(self, what: str) -> None:
        """A line for whoever waits."""
        print(f"{time.monotonic() - self.begun:4.0f} s  {what}", flush=True)

    def shown(self, what: str, figure: str) -> None:
        """A line, and a row of the table."""
        self.rows.append((f"{time.monotonic() - self.begun:.0f} s", what, figure))
        self.say(f"ok  {what}: {figure}")

    def table(self) -> Table:
        """All that was shown."""
        table = Table("at", "shown", "")
        for row in self.rows:
            table.add_row(*row)
        return table
