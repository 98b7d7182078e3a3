"""A real HTTP server that stands in for a hosted provider, for demos and tests; everything it serves says so.

As a program: `python -m inference.standin --port 8089 --script faults.json`.
"""

from inference.standin.calls import CallLog, ReceivedCall
from inference.standin.script import PROVIDER, Behaviour, Rule, Script
from inference.standin.server import StandIn

__all__ = ["PROVIDER", "Behaviour", "CallLog", "ReceivedCall", "Rule", "Script", "StandIn"]
