"""The player of one transcript: peers, observers, invariants. Only here an implementation runs."""
