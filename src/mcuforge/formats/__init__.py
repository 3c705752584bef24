"""Model formats: what a file holds, its import as Relax, and its oracle."""
