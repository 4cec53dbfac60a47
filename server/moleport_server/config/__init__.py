"""Settings of the tunnel server: what may be set, where it comes from, and what is wrong with it.

`settings` and `bounds` hold the facts as frozen dataclasses, one per concern; `values` the types of
single settings; `load` merges flags over environment over TOML file over defaults and reports every
problem at once; `checks` looks at settings that belong together; `render` shows the result to
people; `reference` writes the reference page from the dataclasses. `profile` is the one file that
is written here: what `moleport-server dev` leaves for the CLI.

Components receive their own section and never the whole. Only this package reads the environment.
"""
