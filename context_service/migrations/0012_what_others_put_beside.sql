-- Rows that others put into the tables, or beside them, stop no turn, and no mark is lost with them.

-- A list of contacts that somebody imported into `leads` has no aliases: the number is one, after those that were
-- learned. Without this the person's first turn made a second lead with the number, and was refused for ever.
CREATE OR REPLACE FUNCTION public.sdr_lead_of(p_tenant text, p_aliases text[]) RETURNS uuid
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT coalesce(
        (SELECT leads.id FROM public.lead_aliases JOIN public.leads ON leads.id = lead_aliases.lead_id
         WHERE lead_aliases.tenant = p_tenant AND lead_aliases.alias = ANY (p_aliases)
         ORDER BY leads.row_id LIMIT 1),
        (SELECT id FROM public.leads
         WHERE tenant = p_tenant AND public.sdr_alias(phone_number) = ANY (p_aliases)
         ORDER BY row_id LIMIT 1)
    )
$$;

-- What is no object refused every later turn of its lead.
UPDATE public.leads SET preferences = jsonb_build_object('before', preferences)
WHERE jsonb_typeof(preferences) <> 'object';
ALTER TABLE public.leads ADD CONSTRAINT leads_preferences_object CHECK (jsonb_typeof(preferences) = 'object');

-- As before; but what rows of another table hold, and cannot be pointed elsewhere, stays where it is: the turn is
-- recorded all the same. Two leads that stay two tell of each other in their audit.
CREATE OR REPLACE FUNCTION public.sdr_absorb(
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

-- As before, and who could not be merged with one of them.
CREATE OR REPLACE FUNCTION public.sdr_people(p_tenant text, p_alias text, p_conversations text[]) RETURNS uuid[]
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

-- As before, with the number of who has no alias: their mark went with them.
CREATE FUNCTION public.sdr_all_names(p_lead uuid) RETURNS text[]
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT ARRAY(
        SELECT alias FROM public.lead_aliases WHERE lead_id = p_lead
        UNION
        SELECT public.sdr_alias(phone_number) FROM public.leads
        WHERE id = p_lead AND public.sdr_alias(phone_number) IS NOT NULL
    )
$$;

CREATE OR REPLACE FUNCTION public.sdr_marked_and_old(p_before timestamptz, p_limit integer) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT coalesce(jsonb_agg(jsonb_build_object(
        'lead', id, 'tenant', tenant, 'names', to_jsonb(public.sdr_all_names(id))
    )), '[]')
    FROM (
        SELECT id, tenant FROM public.leads AS one WHERE updated_at < p_before AND do_not_contact
        AND NOT EXISTS (SELECT FROM public.conversations WHERE lead_id = one.id)
        LIMIT p_limit
    ) AS found
$$;

CREATE OR REPLACE FUNCTION public.sdr_sweep_marked(p_lead uuid, p_before timestamptz, p_hashes jsonb, p_now timestamptz)
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

REVOKE ALL ON FUNCTION public.sdr_all_names(uuid) FROM PUBLIC, anon, authenticated;
GRANT EXECUTE ON FUNCTION public.sdr_all_names(uuid) TO service_role;
