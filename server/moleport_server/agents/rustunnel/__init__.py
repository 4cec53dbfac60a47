"""Stock rustunnel clients: control channel, data channel, and the session that both make up."""
