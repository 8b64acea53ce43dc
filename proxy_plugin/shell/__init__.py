"""`proxy-plugin sessions`: what the HTTP API does for a session, from a shell and without a running proxy."""
