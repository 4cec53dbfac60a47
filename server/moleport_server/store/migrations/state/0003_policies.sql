-- Limits learned four members; tokens from before have none of them.
UPDATE tokens SET limits = json_set(
    limits,
    '$.max_connections_per_tunnel', json('null'),
    '$.burst', json('null'),
    '$.request_body_bytes', json('null'),
    '$.bandwidth', json('null'),
    '$.idle_seconds', json('null')
);

-- When a secret was registered: the lifetime that a policy allows begins then. Null: with its token.
ALTER TABLE credentials ADD COLUMN created_at REAL;
