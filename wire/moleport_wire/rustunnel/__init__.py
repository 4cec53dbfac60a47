"""The control plane of rustunnel: messages and the exact texts that its clients know, pure.

    messages  the JSON messages of `/_control`, both directions
    texts     what the family says in errors, byte for byte

The data plane is yamux (`moleport_wire.yamux`); each stream starts with the 16 bytes of a `conn_id`.
"""
