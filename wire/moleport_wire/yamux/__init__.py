"""yamux: many streams over one byte stream, both roles, as rustunnel's clients speak it; pure.

    frames    the 12-byte header, and how frames share a message
    streams   one byte flow: write, half close, reset, flow control in both directions
    mux       parsing, dispatch, fairness, and how many streams may be open

Nothing here waits, reads a clock or knows a socket; `moleport_wire.aio.muxer.YamuxPort` does.
"""
