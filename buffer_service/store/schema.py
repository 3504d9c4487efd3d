"""The SQLite schema, by version. A migration is a script that lifts a file by one version; they are never edited."""

VERSION = 5

MIGRATIONS: dict[int, str] = {
    1: """
CREATE TABLE conversation (
  conversation_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, channel TEXT NOT NULL, instance TEXT NOT NULL,
  created_at INTEGER NOT NULL, contact TEXT NOT NULL, address TEXT NOT NULL, display_name TEXT NOT NULL,
  aliases TEXT NOT NULL, pause_since INTEGER, pause_renewed_at INTEGER, pause_reason TEXT, needs_human INTEGER NOT NULL,
  merged_into TEXT NOT NULL, waits_for TEXT NOT NULL, recorded_version INTEGER NOT NULL, activity_at INTEGER NOT NULL,
  turn_id TEXT NOT NULL, pending INTEGER NOT NULL, unrecorded INTEGER NOT NULL, echoes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX conversation_live ON conversation (activity_at)
  WHERE turn_id <> '' OR pending > 0 OR unrecorded > 0 OR pause_since IS NOT NULL OR echoes > 0;
CREATE INDEX conversation_paused ON conversation (pause_since) WHERE pause_since IS NOT NULL;
CREATE INDEX conversation_needs_human ON conversation (tenant) WHERE needs_human = 1;
CREATE INDEX conversation_merged ON conversation (merged_into) WHERE merged_into <> '';
CREATE TABLE alias (
  tenant TEXT NOT NULL, channel TEXT NOT NULL, instance TEXT NOT NULL, alias TEXT NOT NULL,
  conversation_id TEXT NOT NULL, PRIMARY KEY (tenant, channel, instance, alias)
) WITHOUT ROWID;
CREATE INDEX alias_conversation ON alias (conversation_id);
CREATE INDEX alias_person ON alias (tenant, alias);
CREATE TABLE message (
  sequence INTEGER PRIMARY KEY, tenant TEXT NOT NULL, channel TEXT NOT NULL, instance TEXT NOT NULL,
  message_id TEXT NOT NULL, conversation_id TEXT NOT NULL, turn_id TEXT NOT NULL, accepted_at INTEGER NOT NULL,
  provider_at INTEGER NOT NULL, human INTEGER NOT NULL, record_only INTEGER NOT NULL, body BLOB NOT NULL,
  UNIQUE (tenant, channel, instance, message_id)
);
CREATE INDEX message_turn ON message (turn_id);
CREATE INDEX message_pending ON message (conversation_id, sequence) WHERE turn_id = '';
CREATE TABLE turn (
  number INTEGER PRIMARY KEY, turn_id TEXT NOT NULL UNIQUE, conversation_id TEXT NOT NULL, kind INTEGER NOT NULL,
  opened_at INTEGER NOT NULL, epoch INTEGER NOT NULL, revision INTEGER NOT NULL, last INTEGER NOT NULL,
  truncated INTEGER NOT NULL, handoff INTEGER NOT NULL, needs_human INTEGER NOT NULL, effects BLOB NOT NULL,
  attempts INTEGER NOT NULL, attempt_no INTEGER NOT NULL, tries INTEGER NOT NULL, sender TEXT NOT NULL,
  ended_at INTEGER NOT NULL, ended_no INTEGER NOT NULL, end_reason INTEGER NOT NULL, recorded INTEGER NOT NULL
);
CREATE INDEX turn_ended ON turn (conversation_id, ended_no) WHERE ended_no > 0;
CREATE INDEX turn_unrecorded ON turn (conversation_id, ended_no) WHERE ended_no > 0 AND recorded = 0;
CREATE INDEX turn_swept ON turn (ended_at) WHERE recorded = 1;
CREATE TABLE part (
  turn_id TEXT NOT NULL, position INTEGER NOT NULL, text TEXT NOT NULL, state INTEGER NOT NULL, attempt INTEGER
  NOT NULL, provider_message_id TEXT NOT NULL, closed_at INTEGER NOT NULL, delivery INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (turn_id, position)
) WITHOUT ROWID;
CREATE INDEX part_provider ON part (provider_message_id);
CREATE INDEX part_unknown ON part (closed_at) WHERE state = 4;
CREATE TABLE echo (
  conversation_id TEXT NOT NULL, message_id TEXT NOT NULL, text TEXT NOT NULL, at INTEGER NOT NULL,
  provider_at INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (conversation_id, message_id)
) WITHOUT ROWID;
CREATE TABLE dead_letter (
  dead_letter_id INTEGER PRIMARY KEY AUTOINCREMENT, turn_id TEXT NOT NULL, conversation_id TEXT NOT NULL,
  tenant TEXT NOT NULL, reason TEXT NOT NULL, created_at INTEGER NOT NULL, replayed_at INTEGER NOT NULL DEFAULT 0,
  replay_turn_id TEXT NOT NULL DEFAULT '', handed INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX dead_letter_turn ON dead_letter (turn_id);
CREATE TABLE quarantine (
  quarantine_id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, channel TEXT NOT NULL, instance TEXT NOT NULL,
  reason TEXT NOT NULL, body BLOB NOT NULL, created_at INTEGER NOT NULL
);
""",
    2: "ALTER TABLE conversation ADD COLUMN average_gap INTEGER NOT NULL DEFAULT 0;",
    3: "ALTER TABLE echo ADD COLUMN position INTEGER NOT NULL DEFAULT 0;",
    4: "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    5: """
CREATE TABLE forgotten (
  conversation_id TEXT PRIMARY KEY, tenant TEXT NOT NULL, forgotten_at INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX conversation_silent ON conversation (activity_at)
  WHERE turn_id = '' AND pending = 0 AND unrecorded = 0 AND pause_since IS NULL AND echoes = 0;
""",
}
