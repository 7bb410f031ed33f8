"""What keeps a client's text from running, reading and writing on the engine; it runs on the unit's hosts only."""
