-- A row that something of another table points at, and that table says no, stays; before, it kept the sweep from deleting
-- anything at all.

-- Deletes at most p_limit rows of messages, conversations or leads that are old, the oldest first. How many.
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
REVOKE ALL ON FUNCTION public.sdr_sweep_rows(text, timestamptz, integer) FROM PUBLIC, anon, authenticated;
GRANT EXECUTE ON FUNCTION public.sdr_sweep_rows(text, timestamptz, integer) TO service_role;

-- As before, but for that.
CREATE OR REPLACE FUNCTION public.sdr_sweep(p_before timestamptz, p_limit integer) RETURNS jsonb
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
