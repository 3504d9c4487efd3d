-- A person's data: all of it, none of it, and what is too old.

-- Rows of one section of an export, by row_id.
CREATE FUNCTION public.sdr_export(p_section text, p_leads uuid[], p_after bigint, p_limit integer) RETURNS SETOF jsonb
LANGUAGE plpgsql STABLE SET search_path = '' AS $$
DECLARE
    conversations uuid[] := ARRAY(SELECT id FROM public.conversations WHERE lead_id = ANY (p_leads));
    sessions      text[] := ARRAY(SELECT session_id FROM public.conversations WHERE lead_id = ANY (p_leads));
BEGIN
    CASE p_section
    WHEN 'leads' THEN
        RETURN QUERY SELECT to_jsonb(one) FROM public.leads AS one
        WHERE id = ANY (p_leads) AND row_id > p_after ORDER BY row_id LIMIT p_limit;
    WHEN 'lead_aliases' THEN
        RETURN QUERY SELECT to_jsonb(one) FROM public.lead_aliases AS one
        WHERE lead_id = ANY (p_leads) AND row_id > p_after ORDER BY row_id LIMIT p_limit;
    WHEN 'conversations' THEN
        RETURN QUERY SELECT to_jsonb(one) FROM public.conversations AS one
        WHERE lead_id = ANY (p_leads) AND row_id > p_after ORDER BY row_id LIMIT p_limit;
    WHEN 'messages' THEN
        RETURN QUERY SELECT to_jsonb(one) FROM public.messages AS one
        WHERE conversation_id = ANY (conversations) AND row_id > p_after ORDER BY row_id LIMIT p_limit;
    WHEN 'turns' THEN
        RETURN QUERY SELECT to_jsonb(one) FROM public.turns AS one
        WHERE conversation_id = ANY (conversations) AND row_id > p_after ORDER BY row_id LIMIT p_limit;
    WHEN 'lead_changes' THEN
        RETURN QUERY SELECT to_jsonb(one) FROM public.lead_changes AS one
        WHERE lead_id = ANY (p_leads) AND row_id > p_after ORDER BY row_id LIMIT p_limit;
    WHEN 'usage_days' THEN
        RETURN QUERY SELECT to_jsonb(one) FROM public.usage_days AS one
        WHERE conversation_id = ANY (sessions) AND row_id > p_after ORDER BY row_id LIMIT p_limit;
    WHEN 'merged_conversations' THEN
        RETURN QUERY SELECT to_jsonb(one) FROM public.merged_conversations AS one
        WHERE into_id = ANY (conversations) AND row_id > p_after ORDER BY row_id LIMIT p_limit;
    END CASE;
END $$;

-- The leads that are this person: by a name, by its number (who was imported has no name), by conversations; and who
-- could not be merged with one of them (`sdr_absorb`).
CREATE FUNCTION public.sdr_people(p_tenant text, p_alias text, p_conversations text[]) RETURNS uuid[]
LANGUAGE sql STABLE SET search_path = '' AS $$
    WITH found AS (
        SELECT lead_id AS id FROM public.lead_aliases WHERE tenant = p_tenant AND alias = p_alias
        UNION
        SELECT id FROM public.leads WHERE tenant = p_tenant AND public.sdr_alias(phone_number) = p_alias
        UNION
        SELECT lead_id FROM public.conversations
        WHERE tenant = p_tenant AND session_id = ANY (p_conversations) AND lead_id IS NOT NULL
        UNION
        SELECT lead_id FROM public.merged_conversations JOIN public.conversations ON conversations.id = into_id
        WHERE conversations.tenant = p_tenant AND conversation_id = ANY (p_conversations)
    )
    SELECT ARRAY(
        SELECT id FROM found
        UNION
        SELECT leads.id FROM found JOIN public.lead_changes ON lead_id = found.id AND field = 'merge_held'
        JOIN public.leads ON leads.id = CASE field WHEN 'merge_held' THEN old_value::uuid END
        ORDER BY 1
    )
$$;

-- All names of this person, as a JSON list.
CREATE FUNCTION public.sdr_names_of(p_tenant text, p_alias text, p_conversations text[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT coalesce(jsonb_agg(alias), '[]') FROM public.lead_aliases
    WHERE lead_id = ANY (public.sdr_people(p_tenant, p_alias, p_conversations))
$$;

-- Erases a person and leaves a tombstone for each conversation. p_hashes holds a keyed hash for each of their names,
-- which stays where the person is never to be contacted, and under the empty name the key's id.
CREATE FUNCTION public.sdr_forget(
    p_tenant text, p_alias text, p_conversations text[], p_hashes jsonb, p_do_not_contact boolean, p_now timestamptz
) RETURNS jsonb LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    people     uuid[];
    theirs     uuid[];
    names      text[];
    tombstones text[];
    marked     boolean := p_do_not_contact;
    messages   bigint;
BEGIN
    PERFORM public.sdr_lock(
        ARRAY(SELECT 'conversation:' || one FROM unnest(p_conversations) AS one)
        || ARRAY['alias:' || p_tenant || ':' || p_alias]
    );
    LOOP
        people := public.sdr_people(p_tenant, p_alias, p_conversations);
        PERFORM FROM public.leads WHERE id = ANY (people) ORDER BY id FOR UPDATE;
        -- Whoever held them may have merged them into another one.
        EXIT WHEN people = public.sdr_people(p_tenant, p_alias, p_conversations);
    END LOOP;
    PERFORM FROM public.conversations WHERE lead_id = ANY (people) ORDER BY id FOR UPDATE;
    names := ARRAY(SELECT alias FROM public.lead_aliases WHERE lead_id = ANY (people)) || p_alias;
    IF NOT p_hashes ?& names THEN
        RAISE EXCEPTION 'the names have changed' USING ERRCODE = 'SDR08';
    END IF;
    theirs := ARRAY(SELECT id FROM public.conversations WHERE lead_id = ANY (people));
    SELECT count(*) INTO messages FROM public.messages WHERE conversation_id = ANY (theirs);
    tombstones := p_conversations
        || ARRAY(SELECT session_id FROM public.conversations WHERE id = ANY (theirs))
        || ARRAY(SELECT conversation_id FROM public.merged_conversations WHERE into_id = ANY (theirs));
    SELECT marked OR coalesce(bool_or(do_not_contact), false) INTO marked FROM public.leads WHERE id = ANY (people);
    IF marked THEN
        INSERT INTO public.do_not_contact (tenant, contact_hash, created_at, key_id)
        SELECT DISTINCT p_tenant, p_hashes ->> name, p_now, coalesce(p_hashes ->> '', '') FROM unnest(names) AS name
        ON CONFLICT DO NOTHING;
    ELSIF people <> '{}' THEN
        DELETE FROM public.do_not_contact WHERE tenant = p_tenant
        AND contact_hash IN (SELECT p_hashes ->> name FROM unnest(names) AS name);
    END IF;
    INSERT INTO public.forgotten_conversations (conversation_id, tenant, forgotten_at)
    SELECT DISTINCT one, p_tenant, p_now FROM unnest(tombstones) AS one ON CONFLICT (conversation_id) DO NOTHING;
    DELETE FROM public.usage_days WHERE conversation_id = ANY (tombstones);
    -- The foreign keys take aliases, conversations, messages, turns and audit rows along.
    BEGIN
        DELETE FROM public.leads WHERE id = ANY (people);
    EXCEPTION WHEN foreign_key_violation THEN
        RAISE EXCEPTION 'rows of another table hold the person' USING ERRCODE = 'SDR09';
    END;
    RETURN jsonb_build_object(
        'leads', cardinality(people), 'conversations', cardinality(theirs), 'messages', messages
    );
END $$;

-- Deletes at most p_limit rows of messages, conversations or leads that are old, the oldest first; those that a row of
-- another table holds stay, and keep no others. How many.
CREATE FUNCTION public.sdr_sweep_rows(p_table text, p_before timestamptz, p_limit integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    old_ones text := format('SELECT id FROM public.%I AS one WHERE ', p_table) || CASE p_table
        WHEN 'messages' THEN 'created_at < $1 ORDER BY created_at'
        -- A conversation and a lead go when nothing that is newer hangs on them.
        WHEN 'conversations' THEN 'updated_at < $1
            AND NOT EXISTS (SELECT FROM public.messages WHERE conversation_id = one.id) ORDER BY updated_at'
        WHEN 'leads' THEN 'updated_at < $1 AND NOT do_not_contact
            AND NOT EXISTS (SELECT FROM public.conversations WHERE lead_id = one.id) ORDER BY updated_at'
    END;
    delete_of text := format('DELETE FROM public.%I WHERE id = ANY (ARRAY(', p_table);
    n         bigint := 0;
    gone      bigint;
    one       record;
BEGIN
    -- What somebody is working on is left for the next time.
    BEGIN
        EXECUTE delete_of || old_ones || ' LIMIT $2 FOR UPDATE SKIP LOCKED))' USING p_before, p_limit;
        GET DIAGNOSTICS n = ROW_COUNT;
        RETURN n;
    EXCEPTION WHEN foreign_key_violation THEN
        NULL; -- one of them is held: one by one, then, past those that are
    END;
    FOR one IN EXECUTE old_ones USING p_before LOOP
        EXIT WHEN n >= p_limit;
        BEGIN
            EXECUTE delete_of || format('SELECT id FROM public.%I WHERE id = $1 FOR UPDATE SKIP LOCKED))', p_table)
            USING one.id;
            GET DIAGNOSTICS gone = ROW_COUNT;
            n := n + gone;
        EXCEPTION WHEN foreign_key_violation THEN
            NULL;
        END;
    END LOOP;
    RETURN n;
END $$;

-- One step of many: it reads what is old, whatever the planner thinks of reading everything at once.
CREATE FUNCTION public.sdr_sweep(p_before timestamptz, p_limit integer) RETURNS jsonb
LANGUAGE plpgsql SET search_path = '' SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    counts jsonb := jsonb_build_object('messages', public.sdr_sweep_rows('messages', p_before, p_limit));
    n      bigint;
BEGIN
    DELETE FROM public.turns WHERE row_id = ANY (ARRAY(
        SELECT row_id FROM public.turns WHERE created_at < p_before
        ORDER BY created_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS n = ROW_COUNT;
    counts := counts || jsonb_build_object('turns', n);
    DELETE FROM public.lead_changes WHERE row_id = ANY (ARRAY(
        SELECT row_id FROM public.lead_changes WHERE changed_at < p_before
        ORDER BY changed_at LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS n = ROW_COUNT;
    counts := counts || jsonb_build_object('lead_changes', n);
    DELETE FROM public.usage_days WHERE row_id = ANY (ARRAY(
        SELECT row_id FROM public.usage_days WHERE day < (p_before AT TIME ZONE 'UTC')::date
        ORDER BY day LIMIT p_limit FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS n = ROW_COUNT;
    counts := counts || jsonb_build_object('usage_days', n);
    counts := counts || jsonb_build_object('conversations', public.sdr_sweep_rows('conversations', p_before, p_limit));
    RETURN counts || jsonb_build_object('leads', public.sdr_sweep_rows('leads', p_before, p_limit));
END $$;

-- All names of a lead, the number of who has no alias among them.
CREATE FUNCTION public.sdr_all_names(p_lead uuid) RETURNS text[]
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT ARRAY(
        SELECT alias FROM public.lead_aliases WHERE lead_id = p_lead
        UNION
        SELECT public.sdr_alias(phone_number) FROM public.leads
        WHERE id = p_lead AND public.sdr_alias(phone_number) IS NOT NULL
    )
$$;

-- Who is too old as well, but never to be contacted: their names are wanted as hashes before they go. Without those of
-- whom it is known that they stay.
CREATE FUNCTION public.sdr_marked_and_old(p_before timestamptz, p_held uuid[], p_limit integer) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'lead', id, 'tenant', tenant, 'names', to_jsonb(public.sdr_all_names(id))
    )), '[]')
    FROM (
        SELECT id, tenant FROM public.leads AS one WHERE updated_at < p_before AND do_not_contact
        AND id <> ALL (p_held) AND NOT EXISTS (SELECT FROM public.conversations WHERE lead_id = one.id)
        LIMIT p_limit
    ) AS found
$$;

-- One of them goes, unless they wrote again meanwhile or a row of another table holds them, and a keyed hash of each name
-- stays. How many went.
CREATE FUNCTION public.sdr_sweep_marked(p_lead uuid, p_before timestamptz, p_hashes jsonb, p_now timestamptz)
RETURNS bigint LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    v_tenant text;
    names    text[];
BEGIN
    SELECT tenant INTO v_tenant FROM public.leads AS one
    WHERE id = p_lead AND updated_at < p_before AND do_not_contact
      AND NOT EXISTS (SELECT FROM public.conversations WHERE lead_id = one.id)
    FOR UPDATE SKIP LOCKED;
    names := public.sdr_all_names(p_lead);
    IF v_tenant IS NULL OR NOT p_hashes ?& names THEN
        RETURN 0;
    END IF;
    BEGIN
        INSERT INTO public.do_not_contact (tenant, contact_hash, created_at, key_id)
        SELECT DISTINCT v_tenant, p_hashes ->> name, p_now, coalesce(p_hashes ->> '', '') FROM unnest(names) AS name
        ON CONFLICT DO NOTHING;
        DELETE FROM public.leads WHERE id = p_lead;
    EXCEPTION WHEN foreign_key_violation THEN
        RETURN 0;
    END;
    RETURN 1;
END $$;

-- How many marks are of another key. Those that name none are of whoever asks first.
CREATE FUNCTION public.sdr_marks_of_others(p_key text) RETURNS bigint
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    UPDATE public.do_not_contact SET key_id = p_key WHERE key_id = '';
    RETURN (SELECT count(*) FROM public.do_not_contact WHERE key_id <> p_key);
END $$;
