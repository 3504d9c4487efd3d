-- Tenants, places, order, delivery, versions, turns, aliases, audit. Additive: nothing is renamed or dropped.

-- An "updated_at" trigger, say, would put today over every instant; afterwards they work as before.
CREATE TEMPORARY TABLE sdr_resting ON COMMIT DROP AS
SELECT tgrelid::regclass::text AS owner, tgname FROM pg_trigger
WHERE tgrelid IN ('public.leads'::regclass, 'public.conversations'::regclass, 'public.messages'::regclass)
  AND NOT tgisinternal AND tgenabled = 'O';
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT * FROM sdr_resting LOOP
        EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', one.owner, one.tgname);
    END LOOP;
END $$;

-- How the buffer calls whoever has this number, or NULL: the rules of the providers' names (`ingress/providers`), for the
-- ways in which numbers were written before.
CREATE FUNCTION public.sdr_alias(p_number text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = '' AS $$
    SELECT CASE
        WHEN p_number ~ '^(lid|bsuid|phone):' THEN p_number
        WHEN server IN ('lid', 'hosted.lid') AND account <> '' THEN 'lid:' || account
        WHEN server NOT IN ('', 's.whatsapp.net', 'c.us', 'hosted') OR account !~ '^\d{7,15}$' THEN NULL
        WHEN account ~ '^55[1-9][1-9][6-9]\d{7}$' THEN 'phone:' || left(account, 4) || '9' || right(account, 8)
        ELSE 'phone:' || account
    END
    FROM (
        SELECT lower(split_part(p_number, '@', 2)) AS server, CASE
            WHEN p_number LIKE '%@%' THEN regexp_replace(split_part(p_number, '@', 1), '[^\d+ ()-].*$|\D', '', 'g')
            ELSE regexp_replace(p_number, '[-+ ().\u00a0]', '', 'g')
        END AS account
    ) AS parts
$$;

-- ---- leads

ALTER TABLE public.leads
    ADD COLUMN row_id         bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN tenant         text NOT NULL DEFAULT 'default',
    ADD COLUMN display_name   text NOT NULL DEFAULT '',
    ADD COLUMN referral       jsonb,
    ADD COLUMN needs_human    boolean NOT NULL DEFAULT false,
    ADD COLUMN do_not_contact boolean NOT NULL DEFAULT false;
UPDATE public.leads SET
    phone_number = coalesce(phone_number, 'unknown:' || id),
    current_stage = coalesce(current_stage, 'INITIAL_CONTACT'),
    qualification_score = coalesce(qualification_score, 0),
    qualification_status = coalesce(qualification_status, 'PENDING'),
    preferences = CASE
        WHEN jsonb_typeof(preferences) = 'object' THEN preferences
        WHEN preferences IN ('null', '[]', '""') OR preferences IS NULL THEN '{}'
        ELSE jsonb_build_object('before', preferences)
    END,
    created_at = coalesce(created_at, now()),
    updated_at = coalesce(updated_at, created_at, now());
-- What is not known of a new lead is not known, whatever was assumed before.
ALTER TABLE public.leads
    ALTER COLUMN id SET DEFAULT gen_random_uuid(), ALTER COLUMN phone_number SET NOT NULL,
    ALTER COLUMN bill_value DROP DEFAULT, ALTER COLUMN bill_value DROP NOT NULL,
    ALTER COLUMN interested DROP DEFAULT, ALTER COLUMN interested DROP NOT NULL,
    ALTER COLUMN last_interaction DROP DEFAULT, ALTER COLUMN last_interaction DROP NOT NULL,
    ALTER COLUMN current_stage SET NOT NULL, ALTER COLUMN current_stage SET DEFAULT 'INITIAL_CONTACT',
    ALTER COLUMN qualification_score SET NOT NULL, ALTER COLUMN qualification_score SET DEFAULT 0,
    ALTER COLUMN qualification_status SET NOT NULL, ALTER COLUMN qualification_status SET DEFAULT 'PENDING',
    ALTER COLUMN preferences SET NOT NULL, ALTER COLUMN preferences SET DEFAULT '{}',
    ALTER COLUMN created_at SET NOT NULL, ALTER COLUMN created_at SET DEFAULT now(),
    ALTER COLUMN updated_at SET NOT NULL, ALTER COLUMN updated_at SET DEFAULT now(),
    -- Others write here too; what is no object would refuse every later turn of its lead.
    ADD CONSTRAINT leads_preferences_object CHECK (jsonb_typeof(preferences) = 'object'),
    ADD CONSTRAINT leads_one_per_contact UNIQUE (tenant, phone_number);
CREATE INDEX leads_latest ON public.leads (tenant, updated_at DESC, id DESC);
CREATE INDEX leads_by_age ON public.leads (updated_at);
CREATE INDEX leads_by_alias ON public.leads (tenant, public.sdr_alias(phone_number));

CREATE TABLE public.lead_aliases (
    row_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant     text NOT NULL,
    alias      text NOT NULL,
    lead_id    uuid NOT NULL REFERENCES public.leads (id) ON DELETE CASCADE,
    created_at timestamptz(3) NOT NULL,
    UNIQUE (tenant, alias)
);
CREATE INDEX lead_aliases_lead ON public.lead_aliases (lead_id);
-- The people who are there. Of two leads with one number the older one has the name; erasing the person erases both.
INSERT INTO public.lead_aliases (tenant, alias, lead_id, created_at)
SELECT DISTINCT ON (public.sdr_alias(phone_number)) tenant, public.sdr_alias(phone_number), id, now()
FROM public.leads WHERE public.sdr_alias(phone_number) IS NOT NULL
ORDER BY public.sdr_alias(phone_number), created_at, id;

CREATE TABLE public.lead_changes (
    row_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lead_id    uuid NOT NULL REFERENCES public.leads (id) ON DELETE CASCADE,
    field      text NOT NULL,
    old_value  text,
    new_value  text,
    changed_by text NOT NULL,
    changed_at timestamptz(3) NOT NULL
);
CREATE INDEX lead_changes_of_lead ON public.lead_changes (lead_id);
CREATE INDEX lead_changes_by_age ON public.lead_changes (changed_at);

-- ---- conversations: session_id is the buffer's conversation_id. An empty channel marks one from before, which goes on
-- under a new id when its lead writes again.

ALTER TABLE public.conversations
    ADD COLUMN row_id          bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN tenant          text NOT NULL DEFAULT 'default',
    ADD COLUMN channel         text NOT NULL DEFAULT '',
    ADD COLUMN instance        text NOT NULL DEFAULT '',
    ADD COLUMN needs_human     boolean NOT NULL DEFAULT false,
    ADD COLUMN version         bigint NOT NULL DEFAULT 0,
    ADD COLUMN summary         text NOT NULL DEFAULT '',
    ADD COLUMN summary_version bigint NOT NULL DEFAULT 0,
    ADD COLUMN summary_through bigint NOT NULL DEFAULT 0;
-- Amnesia had its cause here: conversations that were never linked to their lead. What is changed stays to be seen in
-- `metadata`.
UPDATE public.conversations SET
    lead_id = found.lead,
    session_id = coalesce(session_id, id::text),
    metadata = CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata
        WHEN metadata IS NULL THEN '{}' ELSE jsonb_build_object('value', metadata) END
        || jsonb_build_object('before', jsonb_build_object('session_id', session_id, 'lead_id', lead_id,
            'status', status, 'is_active', is_active, 'total_messages', total_messages)),
    status = CASE
        WHEN found.lead IS NULL THEN 'ARCHIVED'
        WHEN status IS NULL OR upper(status) IN ('ACTIVE', 'PAUSED')
            THEN CASE WHEN is_active IS FALSE THEN 'COMPLETED' ELSE coalesce(upper(status), 'ACTIVE') END
        WHEN upper(status) IN ('COMPLETED', 'ARCHIVED') THEN upper(status)
        ELSE 'ARCHIVED'
    END,
    current_stage = coalesce(current_stage, 'INITIAL_CONTACT'),
    phone_number = coalesce(phone_number, ''),
    started_at = coalesce(started_at, created_at, now()),
    created_at = coalesce(created_at, now()),
    updated_at = coalesce(updated_at, created_at, now())
-- Joins: looked up one by one, tens of thousands of conversations took hours (the new indexes serve no query of the
-- transaction that made them).
FROM (
    SELECT one.id AS conversation, coalesce(linked.id, same.id, named.lead_id) AS lead
    FROM public.conversations AS one
    LEFT JOIN public.leads AS linked ON linked.id = one.lead_id
    LEFT JOIN public.leads AS same ON same.phone_number = one.phone_number
    LEFT JOIN public.lead_aliases AS named ON named.alias = public.sdr_alias(one.phone_number)
) AS found WHERE found.conversation = conversations.id;
-- One stays open for each lead: the one that something happened in last.
UPDATE public.conversations SET status = 'COMPLETED'
WHERE status IN ('ACTIVE', 'PAUSED') AND EXISTS (
    SELECT FROM public.conversations AS newer
    WHERE newer.lead_id = conversations.lead_id AND newer.status IN ('ACTIVE', 'PAUSED')
      AND (newer.updated_at, newer.id) > (conversations.updated_at, conversations.id)
);
UPDATE public.conversations SET is_active = status IN ('ACTIVE', 'PAUSED');
ALTER TABLE public.conversations
    ALTER COLUMN id SET DEFAULT gen_random_uuid(), ALTER COLUMN session_id SET NOT NULL,
    ALTER COLUMN status SET NOT NULL, ALTER COLUMN status SET DEFAULT 'ACTIVE',
    ALTER COLUMN is_active SET NOT NULL, ALTER COLUMN is_active SET DEFAULT true,
    ALTER COLUMN current_stage SET NOT NULL, ALTER COLUMN current_stage SET DEFAULT 'INITIAL_CONTACT',
    ALTER COLUMN phone_number SET NOT NULL,
    ALTER COLUMN metadata SET NOT NULL, ALTER COLUMN metadata SET DEFAULT '{}',
    ALTER COLUMN started_at SET NOT NULL, ALTER COLUMN started_at SET DEFAULT now(),
    ALTER COLUMN created_at SET NOT NULL, ALTER COLUMN created_at SET DEFAULT now(),
    ALTER COLUMN updated_at SET NOT NULL, ALTER COLUMN updated_at SET DEFAULT now(),
    ADD CONSTRAINT conversations_known_status CHECK (status IN ('ACTIVE', 'PAUSED', 'COMPLETED', 'ARCHIVED'));
CREATE UNIQUE INDEX conversations_one_open ON public.conversations (lead_id, channel, instance)
    WHERE status IN ('ACTIVE', 'PAUSED');
CREATE INDEX conversations_latest ON public.conversations (tenant, updated_at DESC, session_id DESC);
CREATE INDEX conversations_by_age ON public.conversations (updated_at);
CREATE INDEX conversations_of_lead ON public.conversations (lead_id, updated_at DESC, session_id DESC);

CREATE TABLE public.merged_conversations (
    row_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversation_id text NOT NULL UNIQUE,
    tenant          text NOT NULL,
    into_id         uuid NOT NULL REFERENCES public.conversations (id) ON DELETE CASCADE,
    merged_at       timestamptz(3) NOT NULL
);
CREATE INDEX merged_conversations_into ON public.merged_conversations (into_id);

CREATE TABLE public.forgotten_conversations (
    conversation_id text PRIMARY KEY,
    tenant          text NOT NULL,
    forgotten_at    timestamptz(3) NOT NULL
);

-- With another key nobody is recognised by a mark, and the wish would be lost unnoticed: each says whose it is. The key
-- itself stays with the service.
CREATE TABLE public.do_not_contact (
    tenant       text NOT NULL,
    contact_hash text NOT NULL,
    created_at   timestamptz(3) NOT NULL,
    key_id       text NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, contact_hash)
);

-- ---- messages: the sequence is what orders a conversation; clocks step back, and have a resolution of a second

ALTER TABLE public.messages
    ADD COLUMN row_id              bigint GENERATED ALWAYS AS IDENTITY,
    ADD COLUMN tenant              text NOT NULL DEFAULT 'default',
    ADD COLUMN channel             text NOT NULL DEFAULT '',
    ADD COLUMN instance            text NOT NULL DEFAULT '',
    ADD COLUMN sequence            bigint NOT NULL DEFAULT 0,
    ADD COLUMN details             jsonb,
    ADD COLUMN turn_id             text NOT NULL DEFAULT '',
    ADD COLUMN provider_message_id text NOT NULL DEFAULT '',
    ADD COLUMN delivery_state      text NOT NULL DEFAULT '' CHECK (delivery_state IN ('', 'sent', 'unknown')),
    ADD COLUMN fallback            boolean NOT NULL DEFAULT false;
-- Lines of a conversation that is not there stay, and belong to none.
UPDATE public.messages SET
    conversation_id = numbered.conversation,
    details = CASE WHEN numbered.conversation IS NULL AND conversation_id IS NOT NULL
        THEN jsonb_build_object('before', jsonb_build_object('conversation_id', conversation_id)) END,
    sequence = numbered.place,
    content = coalesce(content, ''),
    created_at = coalesce(messages.created_at, now())
FROM (
    SELECT one.id, conversations.id AS conversation,
        row_number() OVER (PARTITION BY conversations.id ORDER BY one.created_at, one.row_id) AS place
    FROM public.messages AS one LEFT JOIN public.conversations ON conversations.id = one.conversation_id
) AS numbered
WHERE numbered.id = messages.id;
UPDATE public.conversations SET total_messages = counted.total, version = 1
FROM (SELECT conversation_id, count(*) AS total FROM public.messages GROUP BY conversation_id) AS counted
WHERE counted.conversation_id = conversations.id;
UPDATE public.conversations SET total_messages = coalesce(total_messages, 0);
ALTER TABLE public.conversations ALTER COLUMN total_messages SET NOT NULL, ALTER COLUMN total_messages SET DEFAULT 0;
ALTER TABLE public.messages
    ALTER COLUMN id SET DEFAULT gen_random_uuid(), ALTER COLUMN media_data DROP NOT NULL,
    ALTER COLUMN content SET NOT NULL,
    ALTER COLUMN created_at SET NOT NULL, ALTER COLUMN created_at SET DEFAULT now();
CREATE UNIQUE INDEX messages_in_order ON public.messages (conversation_id, sequence) WHERE conversation_id IS NOT NULL;
CREATE UNIQUE INDEX messages_once ON public.messages (tenant, channel, instance, provider_message_id)
    WHERE provider_message_id <> '';
CREATE INDEX messages_by_age ON public.messages (created_at);

-- ---- turns, and what they cost

CREATE TABLE public.turns (
    row_id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    turn_id           text NOT NULL UNIQUE,
    tenant            text NOT NULL,
    conversation_id   uuid NOT NULL REFERENCES public.conversations (id) ON DELETE CASCADE,
    lead_id           uuid NOT NULL,
    version           bigint NOT NULL,
    kind              text NOT NULL,
    truncated         boolean NOT NULL,
    needs_human       boolean NOT NULL,
    handoff           boolean NOT NULL,
    opened_at         timestamptz(3) NOT NULL,
    ended_at          timestamptz(3) NOT NULL,
    created_at        timestamptz(3) NOT NULL,
    model             text NOT NULL,
    fallback          boolean NOT NULL,
    prompt_tokens     bigint NOT NULL,
    cached_tokens     bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    discarded_tokens  bigint NOT NULL,
    cost_micros       bigint NOT NULL
);
CREATE INDEX turns_of_conversation ON public.turns (conversation_id);
CREATE INDEX turns_of_lead ON public.turns (lead_id);
CREATE INDEX turns_by_age ON public.turns (created_at);

-- An empty conversation_id is the whole business.
CREATE TABLE public.usage_days (
    row_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant          text NOT NULL,
    day             date NOT NULL,
    conversation_id text NOT NULL,
    tokens          bigint NOT NULL,
    cost_micros     bigint NOT NULL,
    UNIQUE (tenant, day, conversation_id)
);
CREATE INDEX usage_days_by_age ON public.usage_days (day);
CREATE INDEX usage_days_of_conversation ON public.usage_days (conversation_id);

DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT * FROM sdr_resting LOOP
        EXECUTE format('ALTER TABLE %s ENABLE TRIGGER %I', one.owner, one.tgname);
    END LOOP;
END $$;
DROP TABLE sdr_resting;
