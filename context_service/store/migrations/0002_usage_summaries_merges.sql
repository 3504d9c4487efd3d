-- What models cost, how far a summary reaches, conversations that were merged, and people who are never to be contacted.

ALTER TABLE leads ADD COLUMN do_not_contact INTEGER NOT NULL DEFAULT 0 CHECK (do_not_contact IN (0, 1));

ALTER TABLE conversations ADD COLUMN summary_through INTEGER NOT NULL DEFAULT 0;

ALTER TABLE messages ADD COLUMN fallback INTEGER NOT NULL DEFAULT 0 CHECK (fallback IN (0, 1));

ALTER TABLE turns ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE turns ADD COLUMN fallback INTEGER NOT NULL DEFAULT 0 CHECK (fallback IN (0, 1));
ALTER TABLE turns ADD COLUMN prompt_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN cached_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN completion_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN discarded_tokens INTEGER NOT NULL DEFAULT 0;
ALTER TABLE turns ADD COLUMN cost_micros INTEGER NOT NULL DEFAULT 0;

-- An empty conversation_id is the whole business.
CREATE TABLE usage_days (
    row_id          INTEGER PRIMARY KEY,
    tenant          TEXT NOT NULL,
    day             TEXT NOT NULL,
    conversation_id TEXT NOT NULL,
    tokens          INTEGER NOT NULL,
    cost_micros     INTEGER NOT NULL,
    UNIQUE (tenant, day, conversation_id)
) STRICT;

CREATE INDEX usage_days_of_conversation ON usage_days (conversation_id);

CREATE TABLE merged_conversations (
    row_id          INTEGER PRIMARY KEY,
    conversation_id TEXT NOT NULL UNIQUE,
    tenant          TEXT NOT NULL,
    into_id         TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    merged_at       TEXT NOT NULL
) STRICT;

CREATE INDEX merged_conversations_into ON merged_conversations (into_id);

CREATE TABLE do_not_contact (
    tenant       TEXT NOT NULL,
    contact_hash TEXT NOT NULL,
    created_at   TEXT NOT NULL,
    PRIMARY KEY (tenant, contact_hash)
) STRICT;

CREATE INDEX messages_by_age ON messages (created_at);
CREATE INDEX turns_by_age ON turns (created_at);
CREATE INDEX lead_changes_by_age ON lead_changes (changed_at);
