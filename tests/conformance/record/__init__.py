"""The recorder, which runs a proxy between a real client and server and writes a transcript."""
