-- Times are REAL Unix seconds (UTC), identifiers are text, documents are JSON text.

CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE tokens (
    id              TEXT PRIMARY KEY,
    label           TEXT NOT NULL,
    scope           TEXT,
    access          TEXT NOT NULL,              -- the grant; null members are unrestricted
    limits          TEXT NOT NULL,
    created_at      REAL NOT NULL,
    last_used_at    REAL,
    expires_at      REAL,
    suspended       INTEGER NOT NULL DEFAULT 0,
    owner_cluster   TEXT,                       -- all null: made by hand, not by an operator
    owner_namespace TEXT,
    owner_name      TEXT,
    owner_uid       TEXT,
    policy_ids      TEXT NOT NULL DEFAULT '[]',
    version         INTEGER NOT NULL DEFAULT 1  -- the ETag: counts replacements
);
CREATE INDEX tokens_by_creation ON tokens (created_at DESC, id);
CREATE INDEX tokens_by_owner ON tokens (owner_cluster, owner_namespace, owner_name);

CREATE TABLE credentials (
    token_id     TEXT NOT NULL REFERENCES tokens (id) ON DELETE CASCADE,
    revision     INTEGER NOT NULL,
    sha256       TEXT NOT NULL UNIQUE,
    not_after    REAL,
    last_used_at REAL,
    PRIMARY KEY (token_id, revision)
) WITHOUT ROWID;

CREATE TABLE policies (
    id              TEXT PRIMARY KEY,
    owner_cluster   TEXT,
    owner_namespace TEXT,
    owner_name      TEXT,
    owner_uid       TEXT,
    body            TEXT NOT NULL,
    version         INTEGER NOT NULL DEFAULT 1
);
CREATE INDEX policies_by_owner ON policies (owner_cluster, owner_namespace, owner_name);

CREATE TABLE sessions (
    id        TEXT PRIMARY KEY,
    token_id  TEXT REFERENCES tokens (id) ON DELETE CASCADE,  -- null: the admin's
    protocol  TEXT NOT NULL,
    opened_at REAL NOT NULL
);
CREATE INDEX sessions_by_token ON sessions (token_id);

-- `session_id` is no foreign key: leases outlive their session.
CREATE TABLE leases (
    protocol   TEXT NOT NULL,
    address    TEXT NOT NULL,
    tunnel_id  TEXT NOT NULL,
    token_id   TEXT REFERENCES tokens (id) ON DELETE CASCADE,  -- null: the admin's
    session_id TEXT NOT NULL,
    bind_id    INTEGER NOT NULL,
    settings   TEXT NOT NULL,
    opened_at  REAL NOT NULL,
    until      REAL,                                           -- null: its session is live
    PRIMARY KEY (protocol, address)
) WITHOUT ROWID;
CREATE INDEX leases_by_tunnel ON leases (tunnel_id);
CREATE INDEX leases_by_session ON leases (session_id);
CREATE INDEX leases_by_token ON leases (token_id);

CREATE TABLE tunnel_log (
    id              TEXT PRIMARY KEY,
    tunnel_id       TEXT NOT NULL,
    protocol        TEXT NOT NULL,
    label           TEXT NOT NULL,
    session_id      TEXT NOT NULL,
    token_id        TEXT REFERENCES tokens (id) ON DELETE SET NULL,
    registered_at   REAL NOT NULL,
    unregistered_at REAL
);
CREATE INDEX tunnel_log_by_start ON tunnel_log (registered_at DESC, id);
CREATE INDEX tunnel_log_by_token ON tunnel_log (token_id);
CREATE INDEX tunnel_log_open ON tunnel_log (tunnel_id) WHERE unregistered_at IS NULL;
