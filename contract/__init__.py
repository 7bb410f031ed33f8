"""What distribute and execute-engine agree on: configuration, states, tables, messages, the database handle."""

__version__ = "0.1.0"
