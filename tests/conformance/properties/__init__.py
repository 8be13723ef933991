"""Random sessions, and the rules that apply to each of them."""
