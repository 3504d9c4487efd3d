-- With which key a mark was made: with another one nobody is recognised by it, and the wish would be lost unnoticed.
-- The key itself stays with the service; its id comes among the hashes, under the empty name.

ALTER TABLE public.do_not_contact ADD COLUMN key_id text NOT NULL DEFAULT '';

-- How many marks are of another key. Those from before this migration are of whoever asks first.
CREATE FUNCTION public.sdr_marks_of_others(p_key text) RETURNS bigint
LANGUAGE plpgsql SET search_path = '' AS $$
BEGIN
    UPDATE public.do_not_contact SET key_id = p_key WHERE key_id = '';
    RETURN (SELECT count(*) FROM public.do_not_contact WHERE key_id <> p_key);
END $$;
REVOKE ALL ON FUNCTION public.sdr_marks_of_others(text) FROM PUBLIC, anon, authenticated;
GRANT EXECUTE ON FUNCTION public.sdr_marks_of_others(text) TO service_role;

-- As before, with the key's id.
CREATE OR REPLACE FUNCTION public.sdr_forget(
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
    names := ARRAY(SELECT alias FROM public.lead_aliases WHERE lead_id = p_lead);
    IF v_tenant IS NULL OR NOT p_hashes ?& names THEN
        RETURN 0;
    END IF;
    INSERT INTO public.do_not_contact (tenant, contact_hash, created_at, key_id)
    SELECT DISTINCT v_tenant, p_hashes ->> name, p_now, coalesce(p_hashes ->> '', '') FROM unnest(names) AS name
    ON CONFLICT DO NOTHING;
    DELETE FROM public.leads WHERE id = p_lead;
    RETURN 1;
END $$;
