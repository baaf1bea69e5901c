"""`python -m redline`: the command line."""

import sys

from redline.cli.program import run_program

if __name__ == "__main__":
    sys.exit(run_program())
