"""Data: bAbI stories real and simulated, background text, BABILong composition, token rows."""
