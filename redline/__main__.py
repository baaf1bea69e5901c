"""`python -m redline`: the command line, with the detectors of installed libraries."""

import sys

from redline.cli.program import run_program
from redline.detection.third_party import register_available

if __name__ == "__main__":
    register_available()
    sys.exit(run_program())
