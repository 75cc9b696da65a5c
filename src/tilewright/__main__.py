"""`python -m tilewright` is `tw`."""

import sys

from tilewright.cli.main import main

sys.exit(main())
