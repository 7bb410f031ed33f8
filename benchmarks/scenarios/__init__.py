"""All scenarios by their names, in the order of docs/performance.md."""

from __future__ import annotations

from benchmarks.harness import Scenario
from benchmarks.scenarios import cpu, crowd, daemons, growth, sick, simulation, wall

FAMILIES = (cpu, wall, sick, daemons, growth, crowd, simulation)
SCENARIOS: dict[str, Scenario] = {each.name: each for family in FAMILIES for each in family.SCENARIOS}
