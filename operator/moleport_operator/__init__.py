"""The Kubernetes operator: TunnelTokens and TunnelPolicies become tokens and policies of a server."""
