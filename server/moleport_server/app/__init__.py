"""The composition root: the only package that knows concrete classes.

`server` is the page to read: what starts in which order, and ends in the reverse one. Each part that it
starts has a module: `foundation` (store, metrics, captures), `doorkeeping` (who may come in),
`data_plane` (registry, edge, agents), `rest_api`, `listeners`. Beside them stand `sections` (what a
component is told of the settings), `periodic` (work in the background), `draining` and `readiness`.
"""
