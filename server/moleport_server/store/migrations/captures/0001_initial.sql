-- `seq` is the order of arrival: the size cap deletes from its low end.
CREATE TABLE captures (
    seq            INTEGER PRIMARY KEY,
    id             TEXT NOT NULL UNIQUE,
    tunnel_id      TEXT NOT NULL,
    token_id       TEXT,
    connection_id  TEXT NOT NULL,
    method         TEXT NOT NULL,
    path           TEXT NOT NULL,
    status         INTEGER NOT NULL,
    request_bytes  INTEGER NOT NULL,
    response_bytes INTEGER NOT NULL,
    duration_ms    INTEGER NOT NULL,
    captured_at    REAL NOT NULL,
    request_head   TEXT NOT NULL,
    response_head  TEXT NOT NULL,
    request_body   TEXT,
    response_body  TEXT
);
CREATE INDEX captures_by_tunnel ON captures (tunnel_id, captured_at DESC, seq DESC);
