"""Budgets of the design whose parts do not exist yet: listed, so that nobody takes the table for complete."""

from benchmarks.row import Row

ROWS = [
    Row("later", "150 agents, a model of 2 s per turn, 2 turns", None, "s", 6.0),
    Row("later", "15,000 agents on one machine / bare Temporal", None, "×", 1.3),
    Row("later", "worker killed mid-swarm: finished agents run again", None, "", 0.0),
]
