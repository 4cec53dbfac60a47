"""Who may do what: authentication, authorization, visitor rules and rate limits."""
