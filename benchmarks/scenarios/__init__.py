"""All scenarios by their names, in the order of docs/performance.md."""

from __future__ import annotations

from benchmarks.harness import Scenario
from benchmarks.scenarios import adhoc

SCENARIOS: dict[str, Scenario] = {each.name: each for family in (adhoc,) for each in family.SCENARIOS}
