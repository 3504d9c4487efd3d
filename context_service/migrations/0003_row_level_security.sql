-- Only the secret key, which only the context service holds, reads or writes these tables. What a project grants to the
-- anonymous role by default is taken back, and policies from before that let anybody in are dropped.

DO $$
DECLARE
    name text;
    policy record;
BEGIN
    FOREACH name IN ARRAY ARRAY[
        'leads', 'conversations', 'messages', 'lead_aliases', 'lead_changes', 'merged_conversations',
        'forgotten_conversations', 'do_not_contact', 'turns', 'usage_days', 'sdr_migrations'
    ] LOOP
        EXECUTE format('ALTER TABLE public.%I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('REVOKE ALL ON public.%I FROM anon', name);
        FOR policy IN
            SELECT policyname FROM pg_policies
            WHERE schemaname = 'public' AND tablename = name AND roles && ARRAY['public', 'anon']::name[]
        LOOP
            RAISE NOTICE 'policy % on % let anybody in and is dropped', policy.policyname, name;
            EXECUTE format('DROP POLICY %I ON public.%I', policy.policyname, name);
        END LOOP;
    END LOOP;
END $$;
