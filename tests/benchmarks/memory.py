"""Measures the peak memory of this process, without that of its parent, which getrusage would include."""

from pathlib import Path


def reset_peak() -> None:
    """Resets the peak to the current memory."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_megabytes() -> float:
    """Returns the peak of resident memory in megabytes."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
