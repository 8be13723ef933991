"""The format of transcripts: from text to nodes and back, and the clauses of the specification."""
