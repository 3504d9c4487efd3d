-- A project lets everybody call every new function by default.

DO $$
DECLARE
    one regprocedure;
BEGIN
    FOR one IN SELECT oid::regprocedure FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND proname LIKE 'sdr\_%'
    LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC, anon, authenticated', one);
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO service_role', one);
    END LOOP;
END $$;
