"""`python -m orchestration`: see `orchestration.local.cli`."""

import os
import sys

from expectations.telemetry import switch_off

if __name__ == "__main__":
    switch_off(os.environ)  # before the packages are imported that would report
    os.umask(0o077)  # the home holds customers' rows
    from orchestration.local.cli import main

    sys.exit(main())
