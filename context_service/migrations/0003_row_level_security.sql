-- Only the secret key, which only the context service holds, reads or writes these tables. What a project grants by
-- default to whoever has the publishable key, or has signed up, is taken back.

DO $$
DECLARE
    ours CONSTANT regclass[] := ARRAY[
        'public.leads', 'public.conversations', 'public.messages', 'public.lead_aliases', 'public.lead_changes',
        'public.merged_conversations', 'public.forgotten_conversations', 'public.do_not_contact', 'public.turns',
        'public.usage_days', 'public.sdr_migrations'];
    one  record;
BEGIN
    FOR one IN SELECT unnest(ours) AS name LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', one.name);
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, anon, authenticated', one.name);
        EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON %s TO service_role', one.name);
    END LOOP;
    -- A view shows what its owner may see, whoever asks.
    FOR one IN
        WITH RECURSIVE over (relation) AS (
            SELECT unnest(ours)::oid
            UNION
            SELECT rule.ev_class FROM over
            JOIN pg_depend ON refclassid = 'pg_class'::regclass AND refobjid = relation
                AND classid = 'pg_rewrite'::regclass
            JOIN pg_rewrite AS rule ON rule.oid = objid
        )
        SELECT relation::regclass AS name FROM over WHERE relation <> ALL (ours::oid[])
    LOOP
        RAISE NOTICE 'taken back: anon and authenticated may no longer read the view %', one.name;
        EXECUTE format('REVOKE ALL ON %s FROM PUBLIC, anon, authenticated', one.name);
    END LOOP;
    FOR one IN
        SELECT oid::regprocedure AS name FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef
          AND (has_function_privilege('anon', oid, 'EXECUTE') OR has_function_privilege('authenticated', oid, 'EXECUTE'))
    LOOP
        RAISE NOTICE 'look at it: % has its owner''s rights, and the publishable key may call it', one.name;
    END LOOP;
END $$;
