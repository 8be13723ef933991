"""The recorder, which runs a proxy between a real client and upstream and writes a transcript."""
