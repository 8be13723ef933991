"""Playing one transcript: peers, observers, invariants. Only here is an implementation started."""
