"""The SQL of `state.db`, apart from the code that runs it; `migrations/state` says what columns mean."""

INSERT_INTO_TOKENS = """
    INSERT INTO tokens (id, label, scope, access, limits, created_at, last_used_at, expires_at,
                        suspended, owner_cluster, owner_namespace, owner_name, owner_uid,
                        policy_ids, version)
    VALUES (:id, :label, :scope, :access, :limits, :created_at, :last_used_at, :expires_at,
            :suspended, :owner_cluster, :owner_namespace, :owner_name, :owner_uid,
            :policy_ids, :version)
"""
UPDATE_TOKENS = """
    UPDATE tokens
    SET label = :label, scope = :scope, access = :access, limits = :limits,
        expires_at = :expires_at, suspended = :suspended, owner_cluster = :owner_cluster,
        owner_namespace = :owner_namespace, owner_name = :owner_name, owner_uid = :owner_uid,
        policy_ids = :policy_ids, version = version + 1
    WHERE id = :id AND version = :version
"""
MISSING_POLICIES = """
    SELECT value FROM json_each(?) WHERE value NOT IN (SELECT id FROM policies) LIMIT 1
"""
INSERT_INTO_CREDENTIALS = """
    INSERT INTO credentials (token_id, revision, sha256, not_after, created_at, last_used_at)
    VALUES (:token_id, :revision, :sha256, :not_after, :created_at, :last_used_at)
"""
PUT_CREDENTIAL = f"""{INSERT_INTO_CREDENTIALS}
    ON CONFLICT (token_id, revision) DO UPDATE
    SET not_after = excluded.not_after,
        created_at = CASE sha256 WHEN excluded.sha256 THEN created_at
                     ELSE excluded.created_at END,
        last_used_at = CASE sha256 WHEN excluded.sha256 THEN last_used_at
                       ELSE excluded.last_used_at END,
        sha256 = excluded.sha256
"""  # noqa: S608 - joined from constants
INSERT_INTO_POLICIES = """
    INSERT INTO policies (id, owner_cluster, owner_namespace, owner_name, owner_uid, body, version)
    VALUES (:id, :owner_cluster, :owner_namespace, :owner_name, :owner_uid, :body, :version)
"""
UPDATE_POLICIES = """
    UPDATE policies
    SET owner_cluster = :owner_cluster, owner_namespace = :owner_namespace,
        owner_name = :owner_name, owner_uid = :owner_uid, body = :body, version = version + 1
    WHERE id = :id AND version = :version
"""
FIND_POLICIES = """
    SELECT * FROM policies WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id
"""
LIST_POLICIES = """
    WITH attached AS (
        SELECT value AS id, COUNT(*) AS count FROM tokens, json_each(tokens.policy_ids)
        GROUP BY value
    )
    SELECT policies.*, COALESCE(attached.count, 0) AS attached_tokens
    FROM policies LEFT JOIN attached ON attached.id = policies.id
    WHERE (:ids IS NULL OR policies.id IN (SELECT value FROM json_each(:ids)))
          AND (:owner_cluster IS NULL OR owner_cluster = :owner_cluster)
    ORDER BY policies.id
"""
IS_ATTACHED = """
    SELECT 1 FROM tokens, json_each(tokens.policy_ids) WHERE json_each.value = ? LIMIT 1
"""
JOINED = """
    SELECT tokens.*, revision, sha256, not_after,
           credentials.created_at AS credential_created_at,
           credentials.last_used_at AS credential_last_used_at,
           (SELECT COUNT(*) FROM tunnel_log WHERE token_id = tokens.id) AS tunnel_count
"""
TOKENS_PAGE = f"""{JOINED}
    FROM (SELECT * FROM tokens
          WHERE (:after IS NULL OR created_at < :created_at
                 OR (created_at = :created_at AND id > :after))
                AND (:owner_cluster IS NULL OR owner_cluster = :owner_cluster)
          ORDER BY created_at DESC, id LIMIT :limit) AS tokens
    LEFT JOIN credentials ON credentials.token_id = tokens.id
    ORDER BY tokens.created_at DESC, tokens.id, revision
"""  # noqa: S608 - joined from constants
TOKEN_BY_ID = f"""{JOINED}
    FROM tokens LEFT JOIN credentials ON credentials.token_id = tokens.id
    WHERE tokens.id = ? ORDER BY revision
"""
# The digest is of a random secret, so that the time of an index lookup tells nothing about it.
FIND_CREDENTIAL = f"""{JOINED}
    FROM credentials JOIN tokens ON tokens.id = credentials.token_id WHERE sha256 = ?
"""
TOUCH_SLOTS = """
    UPDATE credentials SET last_used_at = :at
    WHERE token_id = :token_id AND revision = :revision
          AND (last_used_at IS NULL OR last_used_at < :at)
"""
TOUCH_OWNERS = """
    UPDATE tokens SET last_used_at = :at
    WHERE id = :token_id AND (last_used_at IS NULL OR last_used_at < :at)
          AND EXISTS (SELECT 1 FROM credentials
                      WHERE token_id = tokens.id AND revision = :revision)
"""
SAVE_LEASE = """
    INSERT OR REPLACE INTO leases (protocol, address, tunnel_id, token_id, session_id, bind_id,
                                   settings, opened_at, until)
    VALUES (:protocol, :address, :tunnel_id, :token_id, :session_id, :bind_id, :settings,
            :opened_at, :until)
"""
SAVE_SESSION = """
    INSERT OR REPLACE INTO sessions (id, token_id, protocol, opened_at)
    VALUES (:id, :token_id, :protocol, :opened_at)
"""
ADD_LOG_ENTRY = """
    INSERT INTO tunnel_log (id, tunnel_id, protocol, label, session_id, token_id, registered_at,
                            unregistered_at)
    VALUES (:id, :tunnel_id, :protocol, :label, :session_id,
            (SELECT id FROM tokens WHERE id = :token_id), :registered_at, :unregistered_at)
"""
CLOSE_LOG_ENTRIES = """
    UPDATE tunnel_log SET unregistered_at = ? WHERE tunnel_id = ? AND unregistered_at IS NULL
"""
HISTORY_FILTER = """
    WHERE (:protocol IS NULL OR log.protocol = :protocol)
          AND (:token_id IS NULL OR log.token_id = :token_id)
          AND (:active IS NULL OR (log.unregistered_at IS NULL) = :active)
"""
COUNT_HISTORY = f"SELECT COUNT(*) FROM tunnel_log AS log {HISTORY_FILTER}"  # noqa: S608 - constants
LIST_HISTORY = f"""
    SELECT log.*, tokens.label AS token_label
    FROM tunnel_log AS log LEFT JOIN tokens ON tokens.id = log.token_id
    {HISTORY_FILTER}
"""  # noqa: S608 - joined from constants
HISTORY_ORDER = {
    ("started", False): "log.registered_at DESC, log.id",
    ("started", True): "log.registered_at, log.id",
    ("duration", False): "COALESCE(log.unregistered_at, :now) - log.registered_at DESC,"
    " log.registered_at DESC, log.id",
    ("duration", True): "COALESCE(log.unregistered_at, :now) - log.registered_at,"
    " log.registered_at DESC, log.id",
    ("protocol", False): "log.protocol DESC, log.registered_at DESC, log.id",
    ("protocol", True): "log.protocol, log.registered_at DESC, log.id",
}
MOST_ROWS = 2**63 - 1
"""The largest integer of SQLite; callers may ask for more."""
