"""The format of transcripts: its reader and writer, and the requirements of the specification."""
