"""How long this process has run."""

import os
import time
from pathlib import Path

_IMPORTED = time.monotonic()
_SINCE_BOOT = 19
"""Place of the start in /proc/self/stat, counted behind the name of the program."""


def seconds_since_start() -> float:
    """Seconds since this process began, imports counted; where Linux's /proc is missing, since this module was imported."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        began = int(fields[_SINCE_BOOT]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began)
    except (OSError, ValueError, IndexError, AttributeError):
        return time.monotonic() - _IMPORTED
