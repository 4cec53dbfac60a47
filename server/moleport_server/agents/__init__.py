"""Protocol adapters: one module per family of agents, each implementing the registry's Upstream port."""
