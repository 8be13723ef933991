"""Properties: random sessions, and what is true of every one of them."""
