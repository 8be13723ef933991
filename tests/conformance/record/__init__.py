"""The recorder: between a real client, a proxy and a real upstream, it writes a transcript."""
