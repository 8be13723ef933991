"""Playing a transcript: peers, observers, invariants. A program under test runs only here."""
