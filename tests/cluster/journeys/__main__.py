"""Runs the journeys: see journey.main."""
import importlib
import sys
from pathlib import Path

from journey import main

for module in sorted(Path(__file__).parent.glob("journey_*.py")):
    importlib.import_module(module.stem)
sys.exit(main())
