"""Data contract: checks what extraction wrote and the tables; a finding names place, found, expected and fix."""
