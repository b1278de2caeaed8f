"""``python -m devboxctl``."""

from devboxctl.entry import main

main()
