"""`python -m videodit` is the command `videodit`."""

import sys

from videodit.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
