"""Data contract: checks what was really written, and says for each breach where, what, and how to mend it."""
