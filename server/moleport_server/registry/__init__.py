"""Live state: sessions, tunnels and their addresses, leases, holds and the event log.

`registry` is the port for everybody else and names the parts behind it. What others see of the state is
in `live`; `upstream` and `ports` say what the registry asks of agents and of the edge, `claim` what they
may ask of it. `enforcement` stands above: it notices that a token or a policy changed.
"""
