"""`python -m orchestration`: see `orchestration.local.cli`."""

import sys

from orchestration.local.cli import main

if __name__ == "__main__":
    sys.exit(main())
