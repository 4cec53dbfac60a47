"""The hoody-tunnel protocol, v1 and v2, with the `moleport.1` extension: pure, both roles.

    frames    the unit of the data plane, and how frames share a message
    messages  the JSON of the control plane
    members   reads one JSON object, strictly
    window    credit: what a receiver grants, and when its windows grow
    streams   one byte flow: write, half close, reset, flow control in both directions
    mux       many streams over the links of one session, fairly
    session   which control frame is legal in which phase, for both roles

Nothing here waits, reads a clock or knows a socket; `moleport_wire.aio` does.
"""
