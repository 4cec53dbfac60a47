"""The tunnel server: public edge, agent sessions, registry, access control, store and REST API.

Dependencies point one way, `app -> api | edge | agents -> capture -> registry -> access -> store ->
domain`; `app` is the only module that knows concrete classes.
"""
