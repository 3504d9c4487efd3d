-- Conversations of the system before this one that are linked to no lead: an export would not have them, and erasing the
-- person would leave them. Each goes to the lead of its number, in whatever spelling; who has no lead gets one.

-- As in 0002: an "updated_at" trigger would put today over when somebody last wrote.
CREATE TEMPORARY TABLE sdr_resting ON COMMIT DROP AS
SELECT tgrelid::regclass::text AS owner, tgname FROM pg_trigger
WHERE tgrelid IN ('public.leads'::regclass, 'public.conversations'::regclass)
  AND NOT tgisinternal AND tgenabled = 'O';
DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT * FROM sdr_resting LOOP
        EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', one.owner, one.tgname);
    END LOOP;
END $$;

CREATE TEMPORARY TABLE sdr_unlinked ON COMMIT DROP AS
SELECT id, tenant, created_at, updated_at, CASE
    WHEN phone_number ~ '^(lid|bsuid|phone):' THEN phone_number
    WHEN digits ~ '^55[1-9][1-9][6-9]\d{7}$' THEN 'phone:' || left(digits, 4) || '9' || right(digits, 8)
    WHEN digits <> '' THEN 'phone:' || digits
END AS alias
FROM (
    SELECT id, tenant, created_at, updated_at, phone_number,
        regexp_replace(split_part(phone_number, '@', 1), '\D', '', 'g') AS digits
    FROM public.conversations WHERE lead_id IS NULL
) AS numbered;

WITH nobodys AS (
    SELECT tenant, alias, min(created_at) AS since, max(updated_at) AS until FROM sdr_unlinked
    WHERE alias IS NOT NULL
      AND NOT EXISTS (SELECT FROM public.lead_aliases WHERE (lead_aliases.tenant, lead_aliases.alias) =
          (sdr_unlinked.tenant, sdr_unlinked.alias))
    GROUP BY tenant, alias
), made AS (
    INSERT INTO public.leads (tenant, phone_number, created_at, updated_at)
    SELECT tenant, regexp_replace(alias, '^phone:', ''), since, until FROM nobodys
    ON CONFLICT (tenant, phone_number) DO UPDATE SET phone_number = excluded.phone_number
    RETURNING id, tenant, phone_number
)
INSERT INTO public.lead_aliases (tenant, alias, lead_id, created_at)
SELECT tenant, CASE WHEN phone_number ~ '^(lid|bsuid):' THEN phone_number ELSE 'phone:' || phone_number END, id, now()
FROM made;

UPDATE public.conversations SET lead_id = lead_aliases.lead_id
FROM sdr_unlinked JOIN public.lead_aliases USING (tenant, alias)
WHERE conversations.id = sdr_unlinked.id;

DO $$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT * FROM sdr_resting LOOP
        EXECUTE format('ALTER TABLE %s ENABLE TRIGGER %I', one.owner, one.tgname);
    END LOOP;
END $$;
DROP TABLE sdr_resting;
