"""What survives a restart: tokens, leases, sessions, the tunnel log and captures."""
