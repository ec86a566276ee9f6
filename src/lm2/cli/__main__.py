"""`python -m lm2.cli`, the same as the command `lm2`."""

import sys

from lm2.cli import main

sys.exit(main())
