"""The public listeners: HTTP by host name, TCP by port, TLS by SNI."""
