"""Properties: random sessions, and the rules for every one of them."""
