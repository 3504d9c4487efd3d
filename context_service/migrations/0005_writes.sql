-- The writes: each is one call, one transaction, all of it or nothing. Refusals have a SQLSTATE of their own:
-- SDR01 forgotten, SDR02 the turn is another tenant's, SDR03 the conversation is, SDR04 no such lead, SDR05 no such
-- conversation, SDR06 there is a newer summary, SDR07 no such version yet, SDR08 the person's names have changed, SDR09
-- rows of another table hold the person, SDR10 the person was merged or erased meanwhile.
-- Locks are taken in one order: names (advisory, sorted), leads by id, conversations by id, counters, the tenant's last.

CREATE FUNCTION public.sdr_lock(p_names text[]) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    one text;
BEGIN
    FOR one IN SELECT DISTINCT name FROM unnest(p_names) AS name ORDER BY name LOOP
        PERFORM pg_advisory_xact_lock(hashtextextended(one, 5364521));
    END LOOP;
END $$;

CREATE FUNCTION public.sdr_audit(p_lead uuid, p_field text, p_old text, p_new text, p_by text, p_now timestamptz)
RETURNS void LANGUAGE sql SET search_path = '' AS $$
    INSERT INTO public.lead_changes (lead_id, field, old_value, new_value, changed_by, changed_at)
    VALUES (p_lead, p_field, p_old, p_new, p_by, p_now)
$$;

-- Only what differs is written, and each difference leaves an audit row. An empty preference erases its key.
CREATE FUNCTION public.sdr_change_lead(
    p_lead uuid, p_values jsonb, p_preferences jsonb, p_replace boolean, p_by text, p_now timestamptz
) RETURNS void LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    before public.leads;
    after  public.leads;
BEGIN
    SELECT * INTO before FROM public.leads WHERE id = p_lead FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such lead' USING ERRCODE = 'SDR04';
    END IF;
    after := jsonb_populate_record(before, p_values);
    after.preferences := coalesce((
        SELECT jsonb_object_agg(key, value)
        FROM jsonb_each((CASE WHEN p_replace THEN '{}' ELSE before.preferences END) || p_preferences)
        WHERE value <> '""'
    ), '{}');
    INSERT INTO public.lead_changes (lead_id, field, old_value, new_value, changed_by, changed_at)
    SELECT p_lead, field, to_jsonb(before) ->> field, to_jsonb(after) ->> field, p_by, p_now
    FROM jsonb_object_keys(p_values) WITH ORDINALITY AS changed (field, place)
    WHERE to_jsonb(before) ->> field IS DISTINCT FROM to_jsonb(after) ->> field
    ORDER BY place;
    INSERT INTO public.lead_changes (lead_id, field, old_value, new_value, changed_by, changed_at)
    SELECT p_lead, 'preferences.' || key, before.preferences ->> key, after.preferences ->> key, p_by, p_now
    FROM jsonb_object_keys(before.preferences || after.preferences) AS key
    WHERE before.preferences ->> key IS DISTINCT FROM after.preferences ->> key
    ORDER BY key;
    IF after IS DISTINCT FROM before THEN
        UPDATE public.leads SET
            name = after.name, email = after.email, bill_value = after.bill_value, current_stage = after.current_stage,
            qualification_score = after.qualification_score, qualification_status = after.qualification_status,
            interested = after.interested, chosen_flow = after.chosen_flow, needs_human = after.needs_human,
            do_not_contact = after.do_not_contact, preferences = after.preferences, updated_at = p_now
        WHERE id = p_lead;
    END IF;
END $$;

CREATE FUNCTION public.sdr_count_usage(p_tenant text, p_conversation text, p_day date, p_tokens bigint, p_cost bigint)
RETURNS void LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    IF p_tokens = 0 AND p_cost = 0 THEN
        RETURN;
    END IF;
    -- The tenant's row last: everybody waits for who holds it.
    FOR turn IN 1 .. 2 LOOP
        INSERT INTO public.usage_days AS known (tenant, day, conversation_id, tokens, cost_micros)
        VALUES (p_tenant, p_day, CASE turn WHEN 1 THEN p_conversation ELSE '' END, p_tokens, p_cost)
        ON CONFLICT (tenant, day, conversation_id) DO UPDATE
        SET tokens = known.tokens + excluded.tokens, cost_micros = known.cost_micros + excluded.cost_micros;
    END LOOP;
END $$;

-- Rows of tables that are not ours, which point to a row that is about to go, point to the other one then.
CREATE FUNCTION public.sdr_repoint(p_table regclass, p_from uuid, p_into uuid) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT conrelid::regclass AS owner, attname FROM pg_constraint
        JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
        WHERE contype = 'f' AND confrelid = p_table AND cardinality(conkey) = 1 AND conrelid <> ALL (ARRAY[
            'public.conversations', 'public.messages', 'public.lead_aliases', 'public.lead_changes', 'public.turns',
            'public.merged_conversations']::regclass[])
    LOOP
        BEGIN
            EXECUTE format('UPDATE %s SET %I = $1 WHERE %I = $2', one.owner, one.attname, one.attname)
            USING p_into, p_from;
        EXCEPTION WHEN unique_violation OR insufficient_privilege THEN
            NULL; -- there is one already, or it is not ours to touch: its foreign key says what becomes of it
        END;
    END LOOP;
END $$;

-- Two leads, both locked, are one person: the latest value of each field wins. p_lead is gone then.
CREATE FUNCTION public.sdr_merge_leads(p_lead uuid, p_into uuid, p_by text, p_now timestamptz) RETURNS void
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    theirs      public.leads;
    ours        public.leads;
    newer       text[];
    told        text[];
    preferences jsonb;
    flags       jsonb := '{}';
    -- What a lead has of a field that nobody told anything about.
    blank       CONSTANT jsonb :=
        '{"current_stage": "INITIAL_CONTACT", "qualification_score": 0, "qualification_status": "PENDING"}';
BEGIN
    SELECT * INTO theirs FROM public.leads WHERE id = p_lead;
    SELECT * INTO ours FROM public.leads WHERE id = p_into;
    SELECT coalesce(array_agg(field) FILTER (WHERE at > coalesce(ours_at, '-infinity')), '{}'),
        coalesce(array_agg(field) FILTER (WHERE ours_at IS NOT NULL), '{}')
    INTO newer, told FROM (
        SELECT field, max(changed_at) FILTER (WHERE lead_id = p_lead) AS at,
            max(changed_at) FILTER (WHERE lead_id = p_into) AS ours_at
        FROM public.lead_changes WHERE lead_id IN (p_lead, p_into) GROUP BY field
    ) AS changed;
    -- The audit may be too old to be there: what only they have is taken over as well.
    SELECT coalesce(jsonb_object_agg(key, value), '{}') INTO preferences FROM jsonb_each(theirs.preferences)
    WHERE 'preferences.' || key = ANY (newer)
       OR NOT ours.preferences ? key AND 'preferences.' || key <> ALL (told);
    -- One that was erased is told by the audit alone; it wins as an empty value.
    SELECT preferences || coalesce(jsonb_object_agg(substr(field, 13), ''), '{}') INTO preferences
    FROM unnest(newer) AS field
    WHERE starts_with(field, 'preferences.') AND NOT theirs.preferences ? substr(field, 13);
    IF theirs.needs_human AND NOT ours.needs_human THEN
        flags := flags || '{"needs_human": true}';
    END IF;
    IF theirs.do_not_contact AND NOT ours.do_not_contact THEN
        flags := flags || '{"do_not_contact": true}';
    END IF;
    PERFORM public.sdr_change_lead(p_into, flags || coalesce((
        SELECT jsonb_object_agg(key, value) FROM jsonb_each(to_jsonb(theirs))
        WHERE key IN ('name', 'email', 'bill_value', 'current_stage', 'qualification_score', 'qualification_status',
                      'interested', 'chosen_flow')
          AND (key = ANY (newer) OR key <> ALL (told)
              AND coalesce(nullif(to_jsonb(ours) ->> key, ''), blank ->> key) IS NOT DISTINCT FROM blank ->> key
              AND coalesce(nullif(value #>> '{}', ''), blank ->> key) IS DISTINCT FROM blank ->> key)
    ), '{}'), preferences, false, p_by, p_now);
    PERFORM public.sdr_audit(p_into, 'merged_lead', p_lead::text, p_into::text, p_by, p_now);
    UPDATE public.conversations AS one SET status = 'COMPLETED', is_active = false
    WHERE lead_id = p_lead AND status IN ('ACTIVE', 'PAUSED') AND EXISTS (
        SELECT FROM public.conversations AS open WHERE open.lead_id = p_into AND open.channel = one.channel
        AND open.instance = one.instance AND open.status IN ('ACTIVE', 'PAUSED')
    );
    UPDATE public.conversations SET lead_id = p_into WHERE lead_id = p_lead;
    UPDATE public.lead_aliases SET lead_id = p_into WHERE lead_id = p_lead;
    UPDATE public.lead_changes SET lead_id = p_into WHERE lead_id = p_lead;
    UPDATE public.turns SET lead_id = p_into WHERE lead_id = p_lead;
    PERFORM public.sdr_repoint('public.leads', p_lead, p_into);
    UPDATE public.leads SET
        referral = coalesce(referral, theirs.referral),
        display_name = coalesce(nullif(display_name, ''), theirs.display_name),
        last_interaction = greatest(last_interaction, theirs.last_interaction),
        created_at = least(created_at, theirs.created_at)
    WHERE id = p_into;
    DELETE FROM public.leads WHERE id = p_lead;
END $$;

-- Everything of a conversation that was merged into another: its messages come after those that are there. What rows of
-- another table hold, and cannot be pointed elsewhere, stays where it is: the turn is recorded all the same. Two leads
-- that stay two tell of each other in their audit.
CREATE FUNCTION public.sdr_absorb(
    p_tenant text, p_younger text, p_older uuid, p_lead uuid, p_by text, p_now timestamptz
) RETURNS void LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    younger public.conversations;
    older   public.conversations;
BEGIN
    SELECT * INTO older FROM public.conversations WHERE id = p_older;
    IF older.session_id = p_younger OR EXISTS (
        SELECT FROM public.merged_conversations WHERE conversation_id = p_younger AND into_id = p_older
    ) THEN
        RETURN;
    END IF;
    SELECT * INTO younger FROM public.conversations WHERE session_id = p_younger AND tenant = p_tenant;
    IF FOUND THEN
        UPDATE public.messages SET conversation_id = p_older, sequence = sequence + older.total_messages
        WHERE conversation_id = younger.id;
        UPDATE public.conversations SET total_messages = total_messages + younger.total_messages,
            needs_human = needs_human OR younger.needs_human WHERE id = p_older;
        UPDATE public.turns SET conversation_id = p_older WHERE conversation_id = younger.id;
        PERFORM public.sdr_repoint('public.conversations', younger.id, p_older);
        -- What was merged into the younger one stands for the older one too.
        UPDATE public.merged_conversations SET into_id = p_older WHERE into_id = younger.id;
    END IF;
    INSERT INTO public.usage_days AS known (tenant, day, conversation_id, tokens, cost_micros)
    SELECT tenant, day, older.session_id, tokens, cost_micros FROM public.usage_days
    WHERE conversation_id = p_younger AND tenant = p_tenant
    ON CONFLICT (tenant, day, conversation_id) DO UPDATE
    SET tokens = known.tokens + excluded.tokens, cost_micros = known.cost_micros + excluded.cost_micros;
    DELETE FROM public.usage_days WHERE conversation_id = p_younger AND tenant = p_tenant;
    INSERT INTO public.merged_conversations (conversation_id, tenant, into_id, merged_at)
    VALUES (p_younger, p_tenant, p_older, p_now) ON CONFLICT (conversation_id) DO NOTHING;
    BEGIN
        DELETE FROM public.conversations WHERE id = younger.id;
    EXCEPTION WHEN foreign_key_violation THEN
        -- Empty, and under a name that nobody asks for.
        UPDATE public.conversations SET session_id = id::text, status = 'COMPLETED', is_active = false,
            total_messages = 0, summary = '', summary_version = 0, summary_through = 0 WHERE id = younger.id;
    END;
    IF younger.lead_id <> p_lead THEN
        BEGIN
            PERFORM public.sdr_merge_leads(younger.lead_id, p_lead, p_by, p_now);
        EXCEPTION WHEN foreign_key_violation THEN
            PERFORM public.sdr_audit(p_lead, 'merge_held', younger.lead_id::text, p_lead::text, p_by, p_now);
            PERFORM public.sdr_audit(younger.lead_id, 'merge_held', p_lead::text, p_lead::text, p_by, p_now);
        END;
    END IF;
END $$;

-- The aliases that came with the turn, the contact's first, and the phone number. An alias stays with the lead that had
-- it first; a phone replaces a LID, never the reverse.
CREATE FUNCTION public.sdr_learn_names(
    p_tenant text, p_lead uuid, p_contact text, p_aliases text[], p_by text, p_now timestamptz
) RETURNS void LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    old text;
BEGIN
    INSERT INTO public.lead_aliases (tenant, alias, lead_id, created_at)
    SELECT p_tenant, alias, p_lead, p_now FROM unnest(p_aliases) AS alias
    ON CONFLICT (tenant, alias) DO NOTHING;
    SELECT phone_number INTO old FROM public.leads WHERE id = p_lead;
    IF (p_contact ~ '^[0-9]+$' OR public.sdr_alias(old) = p_contact) AND old <> p_contact
        AND NOT EXISTS (SELECT FROM public.leads WHERE tenant = p_tenant AND phone_number = p_contact)
        AND public.sdr_lead_of(p_tenant, p_aliases[1:1]) = p_lead
    THEN
        UPDATE public.leads SET phone_number = p_contact WHERE id = p_lead;
        UPDATE public.conversations SET phone_number = p_contact WHERE lead_id = p_lead;
        PERFORM public.sdr_audit(p_lead, 'phone_number', old, p_contact, p_by, p_now);
    END IF;
END $$;

CREATE FUNCTION public.sdr_record_turn(p jsonb) RETURNS jsonb
LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    v_tenant  text := p ->> 'tenant';
    v_session text := p ->> 'conversation_id';
    v_turn    text := p ->> 'turn_id';
    v_now     timestamptz := p ->> 'now';
    v_aliases text[] := ARRAY(SELECT jsonb_array_elements_text(p -> 'aliases'));
    v_merged  text[] := ARRAY(SELECT jsonb_array_elements_text(p -> 'merged'));
    v_made    jsonb := p -> 'generation';
    v_handed  boolean := (p ->> 'handoff')::boolean;
    first     record;
    v_id      uuid;
    v_lead    uuid;
    v_leads   uuid[];
    v_started bigint;
    v_total   bigint;
    conversation public.conversations;
    step      jsonb;
BEGIN
    PERFORM public.sdr_lock(
        ARRAY(SELECT 'conversation:' || one FROM unnest(v_merged || v_session) AS one)
        || ARRAY(SELECT 'alias:' || v_tenant || ':' || one FROM unnest(v_aliases) AS one)
    );
    IF EXISTS (SELECT FROM public.forgotten_conversations WHERE conversation_id = v_session) THEN
        RAISE EXCEPTION 'forgotten' USING ERRCODE = 'SDR01';
    END IF;
    SELECT tenant, version, lead_id INTO first FROM public.turns WHERE turn_id = v_turn;
    IF FOUND THEN
        IF first.tenant <> v_tenant THEN
            RAISE EXCEPTION 'the turn belongs to another tenant' USING ERRCODE = 'SDR02';
        END IF;
        RETURN jsonb_build_object('version', first.version, 'lead_id', first.lead_id, 'duplicate', true);
    END IF;
    IF EXISTS (SELECT FROM public.conversations WHERE session_id = v_session AND tenant <> v_tenant) THEN
        RAISE EXCEPTION 'the conversation belongs to another tenant' USING ERRCODE = 'SDR03';
    END IF;

    -- Lead and conversation, created if need be. A conversation keeps the lead that it began with.
    v_id := public.sdr_conversation_of(v_tenant, v_session, v_aliases);
    SELECT lead_id INTO v_lead FROM public.conversations WHERE id = v_id;
    v_lead := coalesce(v_lead, public.sdr_lead_of(v_tenant, v_aliases));
    v_leads := v_lead || ARRAY(SELECT lead_id FROM public.conversations
        WHERE session_id = ANY (v_merged) AND tenant = v_tenant AND lead_id IS NOT NULL);
    PERFORM FROM public.leads WHERE id = ANY (v_leads) ORDER BY id FOR UPDATE;
    PERFORM FROM public.conversations WHERE id = v_id OR lead_id = ANY (v_leads) ORDER BY id FOR UPDATE;
    IF v_id IS DISTINCT FROM public.sdr_conversation_of(v_tenant, v_session, v_aliases)
        OR v_lead IS DISTINCT FROM coalesce(
            (SELECT lead_id FROM public.conversations WHERE id = v_id), public.sdr_lead_of(v_tenant, v_aliases))
    THEN
        -- Somebody merged or erased them before they were locked. A repeat finds what there is now.
        RAISE EXCEPTION 'the lead has changed' USING ERRCODE = 'SDR10';
    END IF;
    IF v_lead IS NULL THEN
        INSERT INTO public.leads (tenant, phone_number, name, email, chosen_flow, do_not_contact, created_at, updated_at)
        VALUES (v_tenant, p ->> 'contact', '', '', '', EXISTS (
            SELECT FROM public.do_not_contact WHERE tenant = v_tenant
            AND contact_hash IN (SELECT jsonb_array_elements_text(p -> 'hashes'))
        ), v_now, v_now) RETURNING id INTO v_lead;
    END IF;
    UPDATE public.conversations SET status = 'COMPLETED', is_active = false, updated_at = v_now
    WHERE lead_id = v_lead AND channel = p ->> 'channel' AND instance = p ->> 'instance'
      AND status IN ('ACTIVE', 'PAUSED') AND id IS DISTINCT FROM v_id;
    IF v_id IS NULL THEN
        INSERT INTO public.conversations (
            session_id, tenant, channel, instance, lead_id, phone_number, current_stage, emotional_state, started_at,
            created_at, updated_at
        ) SELECT v_session, v_tenant, p ->> 'channel', p ->> 'instance', id, phone_number, current_stage, '',
            (p ->> 'opened_at')::timestamptz, v_now, v_now
        FROM public.leads WHERE id = v_lead RETURNING id INTO v_id;
    ELSE
        -- One from before goes on with the buffer's name.
        UPDATE public.conversations SET session_id = v_session, channel = p ->> 'channel', instance = p ->> 'instance'
        WHERE id = v_id AND channel = '';
        -- Open before the merges: those complete what would be a second open one.
        UPDATE public.conversations SET status = 'ACTIVE', is_active = true
        WHERE id = v_id AND status NOT IN ('ACTIVE', 'PAUSED');
    END IF;
    FOR step IN SELECT jsonb_array_elements(p -> 'merged') LOOP
        PERFORM public.sdr_absorb(v_tenant, step #>> '{}', v_id, v_lead, v_turn, v_now);
    END LOOP;
    IF EXISTS (
        SELECT FROM unnest(v_aliases, ARRAY(SELECT jsonb_array_elements_text(p -> 'hashes'))) AS one (alias, hash)
        JOIN public.do_not_contact AS marked ON marked.tenant = v_tenant AND marked.contact_hash = one.hash
        WHERE NOT EXISTS (
            SELECT FROM public.lead_aliases AS known WHERE known.tenant = v_tenant AND known.alias = one.alias)
    ) THEN
        -- One of the new names is of somebody who is never to be contacted.
        PERFORM public.sdr_change_lead(v_lead, '{"do_not_contact": true}', '{}', false, v_turn, v_now);
    END IF;
    PERFORM public.sdr_learn_names(v_tenant, v_lead, p ->> 'contact', v_aliases, v_turn, v_now);

    -- History. A message that the provider delivered in another turn is not stored again.
    SELECT total_messages INTO v_total FROM public.conversations WHERE id = v_id;
    v_started := v_total;
    FOR step IN SELECT jsonb_array_elements(p -> 'lines') LOOP
        INSERT INTO public.messages (
            conversation_id, sequence, tenant, channel, instance, role, sender, content, message_type, media_type,
            media_data, details, turn_id, provider_message_id, delivery_state, fallback, created_at
        ) VALUES (
            v_id, v_total + 1, v_tenant, p ->> 'channel', p ->> 'instance', step ->> 'role', step ->> 'sender',
            step ->> 'content', step ->> 'message_type', step ->> 'media_type', nullif(step -> 'media_data', 'null'),
            nullif(step -> 'details', 'null'), v_turn, step ->> 'provider_message_id', step ->> 'delivery_state',
            (step ->> 'fallback')::boolean, (step ->> 'created_at')::timestamptz
        ) ON CONFLICT (tenant, channel, instance, provider_message_id) WHERE provider_message_id <> '' DO NOTHING;
        IF FOUND THEN
            v_total := v_total + 1;
        END IF;
    END LOOP;

    -- What the turn changes, in order; the latest value wins.
    FOR step IN SELECT jsonb_array_elements(p -> 'effects') LOOP
        IF step ? 'handoff' THEN
            v_handed := true;
            PERFORM public.sdr_audit(v_lead, 'handoff', NULL, step ->> 'handoff', v_turn, v_now);
        ELSE
            PERFORM public.sdr_change_lead(v_lead, step -> 'values', step -> 'preferences', false, v_turn, v_now);
        END IF;
    END LOOP;
    PERFORM public.sdr_change_lead(
        v_lead,
        CASE WHEN v_handed THEN '{"current_stage": "HUMAN_HANDOFF", "needs_human": true}'::jsonb
             WHEN (p ->> 'needs_human')::boolean THEN '{"needs_human": true}' ELSE '{}' END,
        '{}', false, v_turn, v_now
    );
    UPDATE public.leads SET
        updated_at = v_now,
        display_name = coalesce(nullif(p ->> 'display_name', ''), display_name),
        referral = coalesce(referral, nullif(p -> 'referral', 'null')),
        last_interaction = greatest(last_interaction, (p ->> 'last_interaction')::timestamptz)
    WHERE id = v_lead;

    UPDATE public.conversations SET
        version = version + 1, updated_at = v_now, total_messages = v_total,
        status = CASE WHEN v_handed OR (p ->> 'by_human')::boolean THEN 'PAUSED'
                      WHEN p ->> 'kind' = 'answer' THEN 'ACTIVE'
                      WHEN status IN ('ACTIVE', 'PAUSED') THEN status ELSE 'ACTIVE' END,
        is_active = true,
        needs_human = needs_human OR v_handed OR (p ->> 'needs_human')::boolean,
        current_stage = (SELECT current_stage FROM public.leads WHERE id = v_lead)
    WHERE id = v_id RETURNING * INTO conversation;
    INSERT INTO public.turns (
        turn_id, tenant, conversation_id, lead_id, version, kind, truncated, needs_human, handoff, opened_at, ended_at,
        created_at, model, fallback, prompt_tokens, cached_tokens, completion_tokens, discarded_tokens, cost_micros
    ) VALUES (
        v_turn, v_tenant, v_id, v_lead, conversation.version, p ->> 'kind', (p ->> 'truncated')::boolean,
        (p ->> 'needs_human')::boolean, v_handed, (p ->> 'opened_at')::timestamptz, (p ->> 'ended_at')::timestamptz,
        v_now, v_made ->> 'model', (v_made ->> 'fallback')::boolean, (v_made ->> 'prompt_tokens')::bigint,
        (v_made ->> 'cached_tokens')::bigint, (v_made ->> 'completion_tokens')::bigint,
        (v_made ->> 'discarded_tokens')::bigint, (v_made ->> 'cost_micros')::bigint
    );
    PERFORM public.sdr_count_usage(
        v_tenant, conversation.session_id, (v_now AT TIME ZONE 'UTC')::date, (v_made ->> 'tokens')::bigint,
        (v_made ->> 'cost_micros')::bigint
    );
    RETURN jsonb_build_object(
        'version', conversation.version, 'lead_id', v_lead, 'duplicate', false,
        'lead', (SELECT public.sdr_lead_json(leads) FROM public.leads WHERE id = v_lead),
        'conversation', public.sdr_conversation_json(conversation, conversation.session_id),
        'messages', coalesce((
            SELECT jsonb_agg(public.sdr_message_json(line) ORDER BY sequence) FROM public.messages AS line
            WHERE conversation_id = v_id AND sequence > v_started
        ), '[]'),
        'usage', public.sdr_usage_today(v_tenant, conversation.session_id, (v_now AT TIME ZONE 'UTC')::date)
    );
END $$;

CREATE FUNCTION public.sdr_put_summary(
    p_conversation text, p_text text, p_version bigint, p_through bigint, p_tokens bigint, p_cost bigint,
    p_now timestamptz
) RETURNS void LANGUAGE plpgsql SET search_path = '' AS $$
DECLARE
    known public.conversations;
BEGIN
    SELECT * INTO known FROM public.conversations WHERE id = coalesce(
        (SELECT id FROM public.conversations WHERE session_id = p_conversation),
        (SELECT into_id FROM public.merged_conversations WHERE conversation_id = p_conversation)
    ) FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such conversation' USING ERRCODE = 'SDR05';
    ELSIF p_through < known.summary_through THEN
        RAISE EXCEPTION 'there is a newer summary' USING ERRCODE = 'SDR06';
    ELSIF p_version > known.version OR p_through > known.total_messages THEN
        RAISE EXCEPTION 'there is no such version yet' USING ERRCODE = 'SDR07';
    END IF;
    UPDATE public.conversations SET summary = p_text, summary_version = p_version, summary_through = p_through
    WHERE id = known.id;
    PERFORM public.sdr_count_usage(
        known.tenant, known.session_id, (p_now AT TIME ZONE 'UTC')::date, p_tokens, p_cost
    );
END $$;

CREATE FUNCTION public.sdr_update_lead(
    p_lead uuid, p_tenant text, p_values jsonb, p_preferences jsonb, p_replace boolean, p_now timestamptz
) RETURNS jsonb LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    PERFORM FROM public.leads WHERE id = p_lead AND (p_tenant = '' OR tenant = p_tenant) FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'no such lead' USING ERRCODE = 'SDR04';
    END IF;
    PERFORM public.sdr_change_lead(p_lead, p_values, p_preferences, p_replace, 'api', p_now);
    IF p_values ? 'current_stage' THEN
        UPDATE public.conversations SET current_stage = p_values ->> 'current_stage'
        WHERE lead_id = p_lead AND status IN ('ACTIVE', 'PAUSED');
    END IF;
    RETURN (SELECT public.sdr_lead_json(leads) FROM public.leads WHERE id = p_lead);
END $$;
