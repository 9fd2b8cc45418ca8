"""`python -m training`: see `training.cli`."""

import os
import sys

from training.cli import main

if __name__ == "__main__":
    os.umask(0o077)  # what it writes is learned from customers' rows
    sys.exit(main())
