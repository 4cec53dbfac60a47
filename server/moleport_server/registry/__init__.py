"""Live state: sessions, tunnels and their addresses, leases, holds and the event log."""
