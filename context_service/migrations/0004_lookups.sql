-- What LoadContext asks, each in one round trip. `p_aliases` finds a lead, or a conversation from before, while the
-- buffer's conversation has not been recorded yet.

CREATE FUNCTION public.sdr_lead_json(one public.leads) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT jsonb_build_object(
        'id', one.id, 'tenant', one.tenant, 'phone_number', one.phone_number, 'name', one.name, 'email', one.email,
        'bill_value', one.bill_value::text, 'current_stage', one.current_stage,
        'qualification_score', one.qualification_score, 'qualification_status', one.qualification_status,
        'interested', one.interested, 'chosen_flow', one.chosen_flow, 'preferences', one.preferences,
        'needs_human', one.needs_human, 'do_not_contact', one.do_not_contact, 'referral', one.referral,
        'last_interaction', one.last_interaction, 'created_at', one.created_at, 'updated_at', one.updated_at
    )
$$;

CREATE FUNCTION public.sdr_conversation_json(one public.conversations, p_session_id text) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT jsonb_build_object(
        'session_id', p_session_id, 'lead_id', one.lead_id, 'tenant', one.tenant, 'channel', one.channel,
        'instance', one.instance, 'phone_number', one.phone_number, 'status', one.status,
        'current_stage', one.current_stage, 'total_messages', one.total_messages, 'version', one.version,
        'summary', one.summary, 'summary_version', one.summary_version, 'summary_through', one.summary_through,
        'started_at', one.started_at, 'updated_at', one.updated_at
    )
$$;

CREATE FUNCTION public.sdr_message_json(one public.messages) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT jsonb_build_object(
        'id', one.id, 'sequence', one.sequence, 'role', one.role, 'sender', one.sender, 'content', one.content,
        'message_type', one.message_type, 'created_at', one.created_at, 'turn_id', one.turn_id,
        'provider_message_id', one.provider_message_id, 'media_data', one.media_data, 'fallback', one.fallback
    )
$$;

-- The lead that was recorded first, of those with one of these names; if there is none, of those with such a number: a
-- list of contacts that somebody imported into `leads` has no aliases, and a second lead with the number is refused.
CREATE FUNCTION public.sdr_lead_of(p_tenant text, p_aliases text[]) RETURNS uuid
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

-- The row that stands for the buffer's conversation: its own, the one that it was merged into, or the open one from
-- before of the same person, which goes on with it.
CREATE FUNCTION public.sdr_conversation_of(p_tenant text, p_conversation text, p_aliases text[]) RETURNS uuid
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT coalesce(
        (SELECT id FROM public.conversations WHERE session_id = p_conversation AND tenant = p_tenant),
        (SELECT into_id FROM public.merged_conversations WHERE conversation_id = p_conversation AND tenant = p_tenant),
        (SELECT id FROM public.conversations
         WHERE lead_id = public.sdr_lead_of(p_tenant, p_aliases) AND channel = '' AND instance = ''
           AND status IN ('ACTIVE', 'PAUSED'))
    )
$$;

CREATE FUNCTION public.sdr_find_lead(p_tenant text, p_conversation text, p_aliases text[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT jsonb_build_object(
        'version', coalesce(known.version, 0),
        'lead', (SELECT public.sdr_lead_json(leads) FROM public.leads
                 WHERE id = coalesce(known.lead_id, public.sdr_lead_of(p_tenant, p_aliases)))
    )
    FROM (SELECT) AS one
    LEFT JOIN public.conversations AS known ON known.id = public.sdr_conversation_of(p_tenant, p_conversation, p_aliases)
$$;

CREATE FUNCTION public.sdr_find_conversation(p_tenant text, p_conversation text, p_aliases text[]) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT public.sdr_conversation_json(known, CASE WHEN channel = '' THEN p_conversation ELSE session_id END)
    FROM public.conversations AS known
    WHERE known.id = public.sdr_conversation_of(p_tenant, p_conversation, p_aliases)
$$;

-- Newest first, and read in that order by the index: the planner thinks of a conversation as one of average length, and
-- would rather read all of it and sort. Lines of the role system are notes of the system that was here before; nobody
-- said them.
CREATE FUNCTION public.sdr_recent_messages(p_tenant text, p_conversation text, p_aliases text[], p_limit integer)
RETURNS jsonb LANGUAGE sql STABLE SET search_path = '' SET enable_sort = off AS $$
    SELECT jsonb_build_object('version', known.version, 'messages', coalesce((
        SELECT jsonb_agg(public.sdr_message_json(line) ORDER BY line.sequence DESC)
        FROM (
            SELECT * FROM public.messages
            WHERE conversation_id = known.id AND role <> 'system'
            ORDER BY sequence DESC LIMIT p_limit
        ) AS line
    ), '[]'))
    FROM public.conversations AS known
    WHERE known.id = public.sdr_conversation_of(p_tenant, p_conversation, p_aliases)
$$;

CREATE FUNCTION public.sdr_usage_today(p_tenant text, p_conversation text, p_day date) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT jsonb_build_object(
        'conversation_tokens', coalesce(sum(tokens) FILTER (WHERE conversation_id <> ''), 0),
        'conversation_cost_micros', coalesce(sum(cost_micros) FILTER (WHERE conversation_id <> ''), 0),
        'tenant_tokens', coalesce(sum(tokens) FILTER (WHERE conversation_id = ''), 0),
        'tenant_cost_micros', coalesce(sum(cost_micros) FILTER (WHERE conversation_id = ''), 0)
    )
    FROM public.usage_days
    WHERE tenant = p_tenant AND day = p_day AND conversation_id IN ('', coalesce(
        (SELECT session_id FROM public.merged_conversations JOIN public.conversations ON conversations.id = into_id
         WHERE merged_conversations.conversation_id = p_conversation AND merged_conversations.tenant = p_tenant),
        p_conversation
    ))
$$;

CREATE FUNCTION public.sdr_list_messages(p_conversation text, p_after bigint, p_limit integer) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = '' SET enable_sort = off AS $$
    SELECT coalesce((
        SELECT jsonb_agg(public.sdr_message_json(line) ORDER BY line.sequence)
        FROM (
            SELECT * FROM public.messages
            WHERE conversation_id = known.id AND sequence > p_after AND role <> 'system'
            ORDER BY sequence LIMIT p_limit
        ) AS line
    ), '[]')
    FROM public.conversations AS known
    WHERE known.id = coalesce(
        (SELECT id FROM public.conversations WHERE session_id = p_conversation),
        (SELECT into_id FROM public.merged_conversations WHERE conversation_id = p_conversation)
    )
$$;

-- Asked at every start, and as the sign that the database answers.
CREATE FUNCTION public.sdr_schema_version() RETURNS integer
LANGUAGE sql STABLE SET search_path = '' AS $$
    SELECT max(version) FROM public.sdr_migrations
$$;
