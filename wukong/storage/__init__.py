"""Where records and values live: control stores, value stores, and the embedded server. Knows nothing of plans."""
