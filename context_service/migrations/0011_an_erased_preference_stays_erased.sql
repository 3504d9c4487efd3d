-- Of two leads that turn out to be one person, the one whose preference was erased last lost to the other's older value.

-- As before, but for that.
CREATE OR REPLACE FUNCTION public.sdr_merge_leads(p_lead uuid, p_into uuid, p_by text, p_now timestamptz) RETURNS void
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
