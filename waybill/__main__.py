"""Lets `python -m waybill` do what `waybill` does; the supervisor starts its worker this way."""

from __future__ import annotations

import sys

from waybill.cli import main

if __name__ == "__main__":
    sys.exit(main())
