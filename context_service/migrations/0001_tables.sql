-- The three tables, with the names and columns of the system that this one takes over. Where they exist they stay, with
-- all that is in them; what would refuse what the product stores is widened or dropped, and each drop is told (NOTICE).

CREATE TABLE IF NOT EXISTS public.leads (
    id                  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    phone_number        text NOT NULL,
    qualification_score integer CHECK (qualification_score BETWEEN 0 AND 100)
);
CREATE TABLE IF NOT EXISTS public.conversations (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    session_id text NOT NULL UNIQUE
);
CREATE TABLE IF NOT EXISTS public.messages (
    id   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    role text NOT NULL
);
ALTER TABLE public.leads
    ADD COLUMN IF NOT EXISTS name                 text,
    ADD COLUMN IF NOT EXISTS email                text,
    ADD COLUMN IF NOT EXISTS bill_value           numeric(10, 2),
    ADD COLUMN IF NOT EXISTS current_stage        text,
    ADD COLUMN IF NOT EXISTS qualification_score  integer,
    ADD COLUMN IF NOT EXISTS qualification_status text,
    ADD COLUMN IF NOT EXISTS interested           boolean,
    ADD COLUMN IF NOT EXISTS chosen_flow          text,
    ADD COLUMN IF NOT EXISTS preferences          jsonb,
    ADD COLUMN IF NOT EXISTS last_interaction     timestamptz,
    ADD COLUMN IF NOT EXISTS created_at           timestamptz,
    ADD COLUMN IF NOT EXISTS updated_at           timestamptz;
ALTER TABLE public.conversations
    ADD COLUMN IF NOT EXISTS lead_id         uuid,
    ADD COLUMN IF NOT EXISTS phone_number    text,
    ADD COLUMN IF NOT EXISTS status          text,
    ADD COLUMN IF NOT EXISTS is_active       boolean,
    ADD COLUMN IF NOT EXISTS current_stage   text,
    ADD COLUMN IF NOT EXISTS emotional_state text,
    ADD COLUMN IF NOT EXISTS total_messages  integer,
    ADD COLUMN IF NOT EXISTS metadata        jsonb,
    ADD COLUMN IF NOT EXISTS started_at      timestamptz,
    ADD COLUMN IF NOT EXISTS created_at      timestamptz,
    ADD COLUMN IF NOT EXISTS updated_at      timestamptz;
ALTER TABLE public.messages
    ADD COLUMN IF NOT EXISTS conversation_id uuid,
    ADD COLUMN IF NOT EXISTS content         text,
    ADD COLUMN IF NOT EXISTS media_type      text,
    ADD COLUMN IF NOT EXISTS media_data      jsonb,
    ADD COLUMN IF NOT EXISTS message_type    text,
    ADD COLUMN IF NOT EXISTS sender          text,
    ADD COLUMN IF NOT EXISTS created_at      timestamptz;

DO $$
DECLARE
    ours     CONSTANT regclass[] := ARRAY['public.leads', 'public.conversations', 'public.messages'];
    texts    CONSTANT text[] := ARRAY[
        'phone_number', 'name', 'email', 'current_stage', 'qualification_status', 'chosen_flow', 'session_id', 'status',
        'emotional_state', 'role', 'content', 'media_type', 'message_type', 'sender'];
    instants CONSTANT text[] := ARRAY['last_interaction', 'started_at', 'created_at', 'updated_at'];
    objects  CONSTANT text[] := ARRAY['preferences', 'metadata', 'media_data'];
    one      record;
    rebuild  text[] := '{}';
    command  text;
BEGIN
    -- Every turn would fail, so rather not begin. These are the columns that nothing here knows and nothing fills.
    FOR one IN
        SELECT attrelid::regclass AS owner, attname FROM pg_attribute
        WHERE attrelid = ANY (ours) AND attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef
          AND attidentity = '' AND attname <> ALL (texts || instants || objects || ARRAY[
              'id', 'bill_value', 'qualification_score', 'interested', 'lead_id', 'is_active', 'total_messages',
              'conversation_id'])
    LOOP
        RAISE EXCEPTION 'column % of % must not be null and has no default; give it one, the product does not fill it',
            one.attname, one.owner;
    END LOOP;

    -- Policies that let in whoever has the publishable key, or has signed up.
    FOR one IN
        SELECT polname AS name, polrelid::regclass AS owner FROM pg_policy
        WHERE polrelid = ANY (ours)
          AND polroles && ARRAY[0, 'anon'::regrole, 'authenticated'::regrole]::oid[]
    LOOP
        RAISE NOTICE 'dropped: policy "%" on %', one.name, one.owner;
        EXECUTE format('DROP POLICY %I ON %s', one.name, one.owner);
    END LOOP;

    -- A column's type cannot change under a view: views go, the outermost first, and come back as they were.
    FOR one IN
        WITH RECURSIVE over (relation, depth) AS (
            SELECT unnest(ours)::oid, 0
            UNION
            SELECT rule.ev_class, depth + 1 FROM over
            JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = relation
                AND classid = 'pg_rewrite'::regclass
            JOIN pg_rewrite AS rule ON rule.oid = objid AND rule.ev_class <> relation
        )
        SELECT pg_class.*, pg_class.oid AS relation, format('%I.%I', nspname, relname) AS name,
            CASE relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END AS kind
        FROM (SELECT relation, max(depth) AS depth FROM over WHERE depth > 0 GROUP BY relation) AS found
        JOIN pg_class ON pg_class.oid = found.relation JOIN pg_namespace ON pg_namespace.oid = relnamespace
        ORDER BY depth DESC
    LOOP
        rebuild := ARRAY[format(
            'CREATE %s %s %s AS %s', one.kind, one.name,
            'WITH (' || array_to_string(one.reloptions, ', ') || ')', pg_get_viewdef(one.relation)
        )] || ARRAY(
            SELECT format('ALTER %s %s OWNER TO %I', one.kind, one.name, pg_get_userbyid(one.relowner))
            WHERE pg_get_userbyid(one.relowner) <> current_user
        ) || ARRAY(
            SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = one.relation
        ) || ARRAY(
            SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = one.relation AND NOT tgisinternal
        ) || ARRAY(
            SELECT format('GRANT %s ON %s TO %s', privilege_type, one.name,
                CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END)
            FROM aclexplode(one.relacl)
        ) || ARRAY(
            SELECT format('COMMENT ON %s %s IS %L', one.kind, one.name, obj_description(one.relation, 'pg_class'))
            WHERE obj_description(one.relation, 'pg_class') IS NOT NULL
        ) || rebuild;
        EXECUTE format('DROP %s %s', one.kind, one.name);
    END LOOP;

    -- Lists of words that the persona chooses today; and one lead per phone or e-mail over all businesses, or one open
    -- conversation per phone over all instances.
    FOR one IN
        SELECT conname, conrelid::regclass AS owner FROM pg_constraint
        WHERE conrelid = ANY (ours) AND (
            contype = 'c' AND EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = conrelid AND attnum = ANY (conkey) AND attname = ANY (texts))
            OR contype = 'u' AND NOT EXISTS (SELECT FROM pg_attribute
                WHERE attrelid = conrelid AND attnum = ANY (conkey)
                  AND attname NOT IN ('phone_number', 'email', 'name', 'lead_id', 'status', 'is_active'))
        )
    LOOP
        RAISE NOTICE 'dropped: constraint "%" on %', one.conname, one.owner;
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', one.owner, one.conname);
    END LOOP;
    FOR one IN
        SELECT indexrelid::regclass AS name FROM pg_index
        WHERE indrelid = ANY (ours) AND indisunique AND NOT indisprimary AND NOT EXISTS (
            SELECT FROM unnest(indkey) AS key LEFT JOIN pg_attribute ON attrelid = indrelid AND attnum = key
            WHERE coalesce(attname, '') NOT IN ('phone_number', 'email', 'name', 'lead_id', 'status', 'is_active'))
    LOOP
        RAISE NOTICE 'dropped: unique index %', one.name;
        EXECUTE format('DROP INDEX %s', one.name);
    END LOOP;

    -- Texts of any length, no enumerations. Instants in UTC, exact to the millisecond: pages go on after an instant, and
    -- what is told is what is compared.
    FOR one IN
        SELECT attrelid::regclass AS owner, attname AS name, wanted, format_type(atttypid, NULL) AS present
        FROM pg_attribute, LATERAL (SELECT CASE
            WHEN attname = ANY (texts) THEN 'text'
            WHEN attname = ANY (instants) THEN 'timestamp(3) with time zone'
            WHEN attname = ANY (objects) THEN 'jsonb'
        END AS wanted) AS chosen
        WHERE attrelid = ANY (ours) AND attnum > 0 AND NOT attisdropped AND wanted <> format_type(atttypid, atttypmod)
    LOOP
        EXECUTE format(
            'ALTER TABLE %s ALTER COLUMN %I TYPE %s USING %s', one.owner, one.name, one.wanted,
            CASE WHEN one.present = 'timestamp without time zone' THEN format('%I AT TIME ZONE ''UTC''', one.name)
                ELSE format('%I::%s', one.name, one.wanted) END
        );
    END LOOP;

    IF NOT EXISTS (SELECT FROM pg_index WHERE indrelid = 'public.conversations'::regclass AND indisunique
        AND indpred IS NULL AND pg_get_indexdef(indexrelid) LIKE '%(session_id)')
    THEN
        CREATE UNIQUE INDEX conversations_by_session ON public.conversations (session_id);
    END IF;

    -- Who erases a person erases what was said. Rows that point nowhere stay.
    FOR one IN
        SELECT * FROM (VALUES
            ('public.conversations'::regclass, 'lead_id', 'public.leads'::regclass),
            ('public.messages', 'conversation_id', 'public.conversations')
        ) AS wanted (child, name, parent)
    LOOP
        FOR command IN
            SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', one.child, conname) FROM pg_constraint
            WHERE contype = 'f' AND conrelid = one.child AND confrelid = one.parent AND confdeltype <> 'c'
        LOOP
            EXECUTE command;
        END LOOP;
        IF NOT EXISTS (SELECT FROM pg_constraint
            WHERE contype = 'f' AND conrelid = one.child AND confrelid = one.parent)
        THEN
            EXECUTE format('ALTER TABLE %s ADD FOREIGN KEY (%I) REFERENCES %s (id) ON DELETE CASCADE NOT VALID',
                one.child, one.name, one.parent);
        END IF;
    END LOOP;

    FOREACH command IN ARRAY rebuild LOOP
        EXECUTE command;
    END LOOP;
END $$;
