-- Tables and columns keep the names of the system that this one replaces; what was missing there is added.
-- Instants are ISO-8601 text in UTC with milliseconds, which sorts by time and is what Postgres reads.
-- bill_value is decimal text with exactly two decimals, because SQLite's NUMERIC would make it a float.
-- row_id survives VACUUM, which a hidden rowid does not; exports go by it.

CREATE TABLE leads (
    row_id               INTEGER PRIMARY KEY,
    id                   TEXT NOT NULL UNIQUE,
    tenant               TEXT NOT NULL,
    phone_number         TEXT NOT NULL,
    name                 TEXT NOT NULL DEFAULT '',
    email                TEXT NOT NULL DEFAULT '',
    bill_value           TEXT CHECK (bill_value GLOB '[0-9]*.[0-9][0-9]'),
    current_stage        TEXT NOT NULL DEFAULT 'INITIAL_CONTACT',
    qualification_score  INTEGER NOT NULL DEFAULT 0 CHECK (qualification_score BETWEEN 0 AND 100),
    qualification_status TEXT NOT NULL DEFAULT 'PENDING'
                         CHECK (qualification_status IN ('PENDING', 'QUALIFIED', 'NOT_QUALIFIED')),
    interested           INTEGER CHECK (interested IN (0, 1)),
    chosen_flow          TEXT NOT NULL DEFAULT '',
    preferences          TEXT NOT NULL DEFAULT '{}',
    display_name         TEXT NOT NULL DEFAULT '',
    referral             TEXT,
    needs_human          INTEGER NOT NULL DEFAULT 0 CHECK (needs_human IN (0, 1)),
    last_interaction     TEXT,
    created_at           TEXT NOT NULL,
    updated_at           TEXT NOT NULL,
    UNIQUE (tenant, phone_number)
) STRICT;

CREATE INDEX leads_latest ON leads (tenant, updated_at DESC, id DESC);

CREATE TABLE lead_aliases (
    row_id     INTEGER PRIMARY KEY,
    tenant     TEXT NOT NULL,
    alias      TEXT NOT NULL,
    lead_id    TEXT NOT NULL REFERENCES leads (id) ON DELETE CASCADE,
    created_at TEXT NOT NULL,
    UNIQUE (tenant, alias)
) STRICT;

CREATE INDEX lead_aliases_lead ON lead_aliases (lead_id);

CREATE TABLE conversations (
    row_id          INTEGER PRIMARY KEY,
    id              TEXT NOT NULL UNIQUE,
    tenant          TEXT NOT NULL,
    channel         TEXT NOT NULL,
    instance        TEXT NOT NULL,
    lead_id         TEXT NOT NULL REFERENCES leads (id) ON DELETE CASCADE,
    session_id      TEXT NOT NULL UNIQUE,
    phone_number    TEXT NOT NULL,
    status          TEXT NOT NULL DEFAULT 'ACTIVE' CHECK (status IN ('ACTIVE', 'PAUSED', 'COMPLETED', 'ARCHIVED')),
    is_active       INTEGER GENERATED ALWAYS AS (status IN ('ACTIVE', 'PAUSED')) VIRTUAL,
    current_stage   TEXT NOT NULL DEFAULT 'INITIAL_CONTACT',
    emotional_state TEXT NOT NULL DEFAULT '',
    total_messages  INTEGER NOT NULL DEFAULT 0,
    metadata        TEXT NOT NULL DEFAULT '{}',
    needs_human     INTEGER NOT NULL DEFAULT 0 CHECK (needs_human IN (0, 1)),
    version         INTEGER NOT NULL DEFAULT 0,
    summary         TEXT NOT NULL DEFAULT '',
    summary_version INTEGER NOT NULL DEFAULT 0,
    started_at      TEXT NOT NULL,
    created_at      TEXT NOT NULL,
    updated_at      TEXT NOT NULL
) STRICT;

CREATE UNIQUE INDEX conversations_one_open ON conversations (lead_id, channel, instance)
    WHERE status IN ('ACTIVE', 'PAUSED');
CREATE INDEX conversations_latest ON conversations (tenant, updated_at DESC, id DESC);
CREATE INDEX conversations_of_lead ON conversations (lead_id, updated_at DESC, id DESC);

CREATE TABLE turns (
    row_id          INTEGER PRIMARY KEY,
    turn_id         TEXT NOT NULL UNIQUE,
    tenant          TEXT NOT NULL,
    conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    lead_id         TEXT NOT NULL,
    version         INTEGER NOT NULL,
    kind            TEXT NOT NULL,
    truncated       INTEGER NOT NULL,
    needs_human     INTEGER NOT NULL,
    handoff         INTEGER NOT NULL,
    opened_at       TEXT NOT NULL,
    ended_at        TEXT NOT NULL,
    created_at      TEXT NOT NULL
) STRICT;

CREATE INDEX turns_of_conversation ON turns (conversation_id);

CREATE TABLE messages (
    row_id              INTEGER PRIMARY KEY,
    id                  TEXT NOT NULL UNIQUE,
    conversation_id     TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
    sequence            INTEGER NOT NULL,
    tenant              TEXT NOT NULL,
    channel             TEXT NOT NULL,
    instance            TEXT NOT NULL,
    role                TEXT NOT NULL CHECK (role IN ('user', 'assistant', 'system')),
    sender              TEXT NOT NULL CHECK (sender IN ('lead', 'human', 'assistant')),
    content             TEXT NOT NULL,
    message_type        TEXT NOT NULL,
    media_type          TEXT NOT NULL DEFAULT '',
    media_data          TEXT,
    details             TEXT,
    turn_id             TEXT NOT NULL,
    provider_message_id TEXT NOT NULL DEFAULT '',
    delivery_state      TEXT NOT NULL DEFAULT '' CHECK (delivery_state IN ('', 'sent', 'unknown')),
    created_at          TEXT NOT NULL
) STRICT;

-- A provider's clock may step back and has a resolution of a second, so the sequence is what orders a conversation.
CREATE UNIQUE INDEX messages_in_order ON messages (conversation_id, sequence);
CREATE UNIQUE INDEX messages_once ON messages (tenant, channel, instance, provider_message_id)
    WHERE provider_message_id <> '';

CREATE TABLE lead_changes (
    row_id     INTEGER PRIMARY KEY,
    lead_id    TEXT NOT NULL REFERENCES leads (id) ON DELETE CASCADE,
    field      TEXT NOT NULL,
    old_value  TEXT,
    new_value  TEXT,
    changed_by TEXT NOT NULL,
    changed_at TEXT NOT NULL
) STRICT;

CREATE INDEX lead_changes_of_lead ON lead_changes (lead_id);

CREATE TABLE forgotten_conversations (
    conversation_id TEXT PRIMARY KEY NOT NULL,
    tenant          TEXT NOT NULL,
    forgotten_at    TEXT NOT NULL
) STRICT;
