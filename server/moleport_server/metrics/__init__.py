"""Prometheus instruments of the server, grouped by who counts with them."""
