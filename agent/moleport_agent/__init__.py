"""The moleport agent and its command line: exposes local services through a tunnel server."""
