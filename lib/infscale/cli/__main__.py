"""``python -m infscale.cli``."""

import sys

from infscale.cli import main

sys.exit(main())
