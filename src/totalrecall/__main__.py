"""`python -m totalrecall` is the command line."""

import sys

from totalrecall.cli import main

if __name__ == "__main__":
    sys.exit(main())
