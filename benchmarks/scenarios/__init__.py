"""All scenarios by their names, in the order of docs/performance.md."""

from __future__ import annotations

from benchmarks.harness import Scenario
from benchmarks.scenarios import cpu, daemons, sick, wall

SCENARIOS: dict[str, Scenario] = {each.name: each for family in (cpu, wall, sick, daemons) for each in family.SCENARIOS}
