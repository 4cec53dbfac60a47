"""Write the reference page of the command line from the commands themselves.

`python -m moleport_agent.cli.reference > docs/reference/cli.md` renews it; a test fails when the
page and the commands differ.
"""

import sys
from collections.abc import Iterator
from typing import Final

import click

from moleport_agent.cli.app import moleport
from moleport_agent.cli.exits import MEANINGS

_HEAD: Final = """# The command `moleport`

This page is made from the commands: `python -m moleport_agent.cli.reference`.

## Where settings come from

The first source that says something wins: flags, environment, `moleport.yaml`, profile.

| What | Flag | Environment | moleport.yaml | Profile |
|---|---|---|---|---|
| server | `--server` | `MOLEPORT_SERVER` | `server` | `server` |
| token | - | `MOLEPORT_TOKEN` | - | `token` |
| file with the token | `--token-file` | `MOLEPORT_TOKEN_FILE` | `token_file` | `token_file` |
| CA of the server | `--ca-file` | `MOLEPORT_CA_FILE` | `ca_file` | `ca_file` |
| no verification | `--insecure` | - | `insecure` | `insecure` |
| mounted TunnelToken Secret | `--secret-dir` | `MOLEPORT_SECRET_DIR` | - | - |
| tunnels | `http`, `tcp` | - | `tunnels` | - |
| connections | `--connections` | - | `connections` | - |

* No flag takes a token: arguments are visible to every user of a machine. `moleport login` reads it
  from the terminal or from standard input.
* A token file is read again when it changes, so a rotation needs no restart.
* `--ca-file` and `--insecure` are one choice: the first source that says either of them decides.
* A Secret directory has the files `token`, `uri` (or `MOLEPORT_SERVER`) and `ca.crt`. Explicit flags
  or variables of the same source are stronger.
* The profile is `profile.json` in the platform's directory for settings, or in
  `MOLEPORT_CONFIG_DIR`. Its token, CA and `insecure` are for its own server only and are never used
  with another one.
* Proxies come from `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.

## Exit codes

| Code | Meaning |
|---|---|
"""

_TAIL: Final = """
## moleport.yaml

```yaml
server: https://tunnels.example.com:4040   # optional, as are the next three
token_file: /var/run/moleport/token
ca_file: ca.crt
connections: 1
tunnels:
  web:                          # a name for you; unique in this file
    protocol: http              # http or tcp
    target: 3000                # see TARGET above
    name: shop                  # wanted label under the server's domain
    # hostname: shop.example.com  # or a wanted full host name
    host_header: rewrite        # preserve (default), rewrite, or a fixed value
    basic_auth_file: users.txt  # one user:password per line
    allow_cidr: [10.0.0.0/8]    # visitors from elsewhere get 403
  db:
    protocol: tcp
    target: localhost:5432
    port: 20005                 # wanted public port
    proxy_protocol: v2          # v1 or v2, default off
```

More keys of a tunnel: `basic_auth` (a list of `user:password`), `upstream_insecure`, `upstream_ca`,
`upstream_server_name`. File names start at the directory of moleport.yaml. `[]` for `allow_cidr` or
`basic_auth` lets nobody in; leaving the key out lets everybody in. Unknown and repeated keys are
errors.

## JSON

Keys may be added, never renamed or removed. Times are RFC 3339 in UTC.

`http`, `tcp` and `start` print one object per line. Each has `at` and `event`:

| `event` | Further keys |
|---|---|
| `connecting` | `server`, `attempt` |
| `connected` | `session_id`, `server`, `resumed` |
| `tunnel_opened` | `name`, `public_url`, `target`, `container_port` |
| `tunnel_refused` | `name`, `code`, `message`, `is_final` |
| `tunnel_closed` | `name`, `reason` |
| `disconnected` | `reason`, `retry_in_seconds` (null: never) |
| `request_seen` | `name`, `method`, `path`, `status` (0: a TCP connection), `duration_ms`, `peer` |
| `requests_skipped` | `count` |
| `latency_measured` | `milliseconds` |
| `draining` | `deadline_seconds`, `reason` |
| `upstream_failed` | `name`, `target`, `reason` |
| `lines_lost` | `count`; without `at`: the reader was too slow for so many lines |

`requests` prints one object per line: `request_id`, `at`, `label`, `tunnel_id`, `method`, `path`,
`status`, `duration_ms`, `request_bytes`, `response_bytes`.

The others print one document:

| Command | Document |
|---|---|
| `list` | array of `tunnel_id`, `protocol`, `label`, `public_url`, `connected_since`, \
`request_count`, `client_addr` |
| `replay` | `id`, `tunnel_id`, `method`, `path`, `status`, `request_bytes`, `response_bytes`, \
`duration_ms`, `captured_at`, `request_body`, `response_body` |
| `status` | `server`, `ok`, `version`, `active_sessions`, `active_tunnels`, `token_accepted` |
| `token create` | `id`, `label`, `token` |
| `token list` | array of `id`, `label`, `scope`, `created_at`, `last_used_at`, `tunnel_count` |
| `token delete` | `id`, `deleted` |
| `login` | `server`, `profile`, `verified` |
| `doctor` | `healthy`, `checks`: array of `check`, `outcome` (`ok`, `warning`, `failed`, \
`skipped`), `sentence`, `remedy` |
"""


def reference_page() -> str:
    """Make the whole page."""
    parts = [_HEAD]
    parts.extend(f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items())
    parts.append("\n## Commands\n")
    with click.Context(moleport, info_name="moleport") as root:
        parts.extend(_commands(moleport, root))
    parts.append(_TAIL)
    return "".join(parts)


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        with click.Context(command, info_name=name, parent=context) as inner:
            if isinstance(command, click.Group):
                yield from _commands(command, inner)
            else:
                yield from _command(command, inner)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield f"\n### `{context.command_path}`\n\n```\n{usage}\n```\n\n{_prose(command.help)}\n"
    rows = [
        record
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and "--help" not in parameter.opts
        and (record := parameter.get_help_record(context)) is not None
    ]
    if rows:
        yield "\n| Option | Meaning |\n|---|---|\n"
        for flags, meaning in rows:
            yield f"| `{_cell(flags)}` | {_cell(meaning)} |\n"
    if command.epilog:
        example = command.epilog.removeprefix("\b\n").removeprefix("Example: ")
        yield f"\n```\n{example}\n```\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _prose(text: str | None) -> str:
    paragraphs = (text or "").replace("\b\n", "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


if __name__ == "__main__":
    sys.stdout.write(reference_page())
