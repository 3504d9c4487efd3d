"""Databases of the system that was here before, with people in them: as it was made, and as it may have grown."""

from typing import Final

# As the tables stood in its documentation.
PLAIN: Final = """
CREATE EXTENSION IF NOT EXISTS plpgsql;
CREATE TABLE leads (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), phone_number varchar(50) UNIQUE NOT NULL, name varchar(100),
    email varchar(100), bill_value numeric(10, 2), current_stage varchar(50) DEFAULT 'INITIAL_CONTACT',
    qualification_score int DEFAULT 0 CHECK (qualification_score >= 0 AND qualification_score <= 100),
    qualification_status varchar(20) DEFAULT 'PENDING'
        CHECK (qualification_status IN ('PENDING', 'QUALIFIED', 'NOT_QUALIFIED')),
    interested boolean DEFAULT true, chosen_flow varchar(100) CHECK (chosen_flow IN ('Instalação Usina Própria',
        'Aluguel de Lote', 'Compra com Desconto', 'Usina Investimento')),
    preferences jsonb DEFAULT '{}', last_interaction timestamptz DEFAULT now(), created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now()
);
CREATE TABLE conversations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), lead_id uuid REFERENCES leads ON DELETE CASCADE,
    session_id varchar(100) UNIQUE NOT NULL, phone_number varchar(50),
    status varchar(20) DEFAULT 'ACTIVE' CHECK (status IN ('ACTIVE', 'PAUSED', 'COMPLETED', 'ARCHIVED')),
    is_active boolean DEFAULT true, current_stage varchar(50), emotional_state varchar(50) DEFAULT 'NEUTRO'
        CHECK (emotional_state IN ('ENTUSIASMADO', 'CURIOSO', 'NEUTRO', 'CÉTICO')),
    total_messages int DEFAULT 0, metadata jsonb DEFAULT '{}', started_at timestamptz DEFAULT now(),
    created_at timestamptz DEFAULT now(), updated_at timestamptz DEFAULT now()
);
CREATE TABLE messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), conversation_id uuid REFERENCES conversations ON DELETE CASCADE,
    role varchar(20) NOT NULL CHECK (role IN ('user', 'assistant', 'system')), content text,
    media_type varchar(50) CHECK (media_type IN ('image', 'audio', 'video', 'document')), media_data jsonb,
    message_type varchar(50), sender varchar(50), created_at timestamptz DEFAULT now()
);
CREATE INDEX idx_leads_stage ON leads (current_stage);
CREATE INDEX idx_messages_conversation ON messages (conversation_id);
ALTER TABLE leads ENABLE ROW LEVEL SECURITY;
"""

# Grown: local times, enumerations, nothing but keys that must not be null, triggers, views, policies, other tables.
GROWN: Final = """
CREATE TYPE flow AS ENUM ('Instalação Usina Própria', 'Aluguel de Lote', 'Compra com Desconto', 'Usina Investimento');
CREATE TYPE conversation_status AS ENUM ('ACTIVE', 'PAUSED', 'COMPLETED', 'ARCHIVED');
CREATE TABLE leads (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), phone_number varchar(50) NOT NULL, name varchar(40),
    email varchar(60) UNIQUE, bill_value numeric, current_stage varchar(50), qualification_score int,
    qualification_status varchar(20), interested boolean NOT NULL DEFAULT true, chosen_flow flow DEFAULT NULL,
    preferences jsonb, last_interaction timestamp, created_at timestamp DEFAULT timezone('utc', now()),
    updated_at timestamp DEFAULT timezone('utc', now()), utm_source text, score_reason text NOT NULL DEFAULT ''
);
CREATE UNIQUE INDEX leads_phone ON leads (phone_number);
CREATE TABLE conversations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), lead_id uuid REFERENCES leads, session_id varchar(100) UNIQUE,
    phone_number varchar(50), status conversation_status DEFAULT 'ACTIVE', is_active boolean, current_stage varchar(50),
    emotional_state varchar(50), total_messages int, metadata jsonb, started_at timestamp, created_at timestamp,
    updated_at timestamp
);
CREATE TABLE messages (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), conversation_id uuid, role varchar(20) NOT NULL, content text,
    media_type varchar(50), media_data jsonb NOT NULL DEFAULT '{}', message_type varchar(50), sender varchar(50),
    created_at timestamp
);
CREATE TABLE follow_ups (
    id serial PRIMARY KEY, lead_id uuid REFERENCES leads ON DELETE CASCADE, conversation_id uuid
        REFERENCES conversations ON DELETE SET NULL, note text
);
CREATE TABLE meetings (lead_id uuid PRIMARY KEY REFERENCES leads, at timestamptz);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.updated_at = timezone('utc', now()); RETURN NEW; END $$;
CREATE TRIGGER touch_leads BEFORE UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER touch_conversations BEFORE UPDATE ON conversations FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TRIGGER asleep BEFORE UPDATE ON leads FOR EACH ROW EXECUTE FUNCTION touch();
ALTER TABLE leads DISABLE TRIGGER asleep;
CREATE VIEW hot_leads WITH (security_barrier = true) AS
    SELECT id, name, phone_number, chosen_flow::text AS flow, created_at FROM leads WHERE bill_value > 4000;
COMMENT ON VIEW hot_leads IS 'for the sales team';
CREATE VIEW hot_names AS SELECT name AS who FROM hot_leads WHERE name IS NOT NULL;
CREATE MATERIALIZED VIEW stages AS SELECT current_stage AS stage, count(*) AS people FROM leads GROUP BY 1;
CREATE UNIQUE INDEX stages_by_name ON stages (stage);
CREATE POLICY everybody ON leads FOR ALL TO public USING (true) WITH CHECK (true);
CREATE POLICY visitors ON messages FOR SELECT TO anon USING (conversation_id IS NOT NULL);
CREATE POLICY members ON conversations FOR ALL TO authenticated USING (phone_number = auth.jwt() ->> 'phone');
"""

# Ids end in the number of the person. 1: known well, with an open conversation. 2: written with punctuation. 3: as a
# jid, before the ninth digit. 4: two open conversations and a paused one. 5: nothing but a number, twice. 6: a LID.
PEOPLE: Final = """
INSERT INTO leads (id, phone_number, name, email, bill_value, current_stage, qualification_score, qualification_status,
    interested, chosen_flow, preferences, last_interaction, created_at, updated_at) VALUES
('00000000-0000-0000-0000-000000000001', '5581999990001', 'Ana', 'ana@example.com', 4500.50, 'QUALIFYING', 80,
    'QUALIFIED', true, 'Aluguel de Lote', '{"cidade": "Recife", "contas": [1, 2]}',
    '2025-03-01 12:00:00.123456', '2025-01-01 08:00', '2025-03-01 12:00:01'),
('00000000-0000-0000-0000-000000000002', '+55 (81) 99999-0002', 'Bia', NULL, 800, 'BILL', 10, 'PENDING', true, NULL,
    NULL, NULL, '2025-01-02', '2025-01-02'),
('00000000-0000-0000-0000-000000000003', '558199990003@s.whatsapp.net', 'Caio', NULL, NULL, 'OFFER', 0, 'PENDING',
    false, NULL, '[]', NULL, '2025-01-03', '2025-01-03'),
('00000000-0000-0000-0000-000000000004', '5581999990004', NULL, NULL, 1e4, NULL, NULL, NULL, true, NULL, '"x"', NULL,
    NULL, NULL),
('00000000-0000-0000-0000-000000000005', '5581999990005', NULL, NULL, NULL, NULL, NULL, NULL, true, NULL, NULL, NULL,
    '2025-01-05', NULL),
('00000000-0000-0000-0000-000000000015', '558199990005', 'Eva', NULL, NULL, NULL, NULL, NULL, true, NULL, NULL, NULL,
    '2025-02-05', NULL),
('00000000-0000-0000-0000-000000000006', '123456789012345@lid', 'Gil', NULL, NULL, NULL, NULL, NULL, true, NULL, NULL,
    NULL, '2025-01-06', NULL);
INSERT INTO conversations (id, lead_id, session_id, phone_number, status, is_active, current_stage, total_messages,
    metadata, started_at, created_at, updated_at) VALUES
('00000000-0000-0000-0001-000000000001', '00000000-0000-0000-0000-000000000001', 's1', '5581999990001', 'ACTIVE', true,
    'QUALIFYING', 99, '{"a": 1}', '2025-02-28', '2025-02-28', '2025-03-01'),
('00000000-0000-0000-0001-000000000002', NULL, 's2', '5581999990002', 'ACTIVE', true, 'BILL', 2, NULL, '2025-01-02',
    '2025-01-02', '2025-01-02'),
('00000000-0000-0000-0001-000000000003', '00000000-0000-0000-0000-000000000003', 's3', NULL, 'COMPLETED', false, NULL,
    NULL, '[1]', NULL, NULL, NULL),
('00000000-0000-0000-0001-000000000004', '00000000-0000-0000-0000-000000000004', 's4', '5581999990004', 'ACTIVE', true,
    NULL, NULL, NULL, NULL, '2025-01-04', '2025-01-04'),
('00000000-0000-0000-0001-000000000014', '00000000-0000-0000-0000-000000000004', 's14', '5581999990004', NULL, NULL,
    NULL, NULL, NULL, NULL, '2025-01-14', '2025-01-14'),
('00000000-0000-0000-0001-000000000024', '00000000-0000-0000-0000-000000000004', 's24', '5581999990004', 'PAUSED', true,
    NULL, NULL, NULL, NULL, '2025-01-10', '2025-01-10'),
('00000000-0000-0000-0001-000000000009', NULL, 's9', '5581999990009', 'ACTIVE', true, NULL, NULL, NULL, NULL, NULL,
    NULL);
INSERT INTO messages (id, conversation_id, role, content, media_type, media_data, message_type, sender, created_at)
VALUES
('00000000-0000-0000-0002-000000000001', '00000000-0000-0000-0001-000000000001', 'user', 'oi', NULL, '{}', 'text', NULL,
    '2025-02-28 10:00'),
('00000000-0000-0000-0002-000000000002', '00000000-0000-0000-0001-000000000001', 'assistant', 'Oi! Sou a Helen.', NULL,
    '{}', 'conversation', 'agent', '2025-02-28 10:00:01'),
('00000000-0000-0000-0002-000000000003', '00000000-0000-0000-0001-000000000001', 'system', 'stage changed', NULL, '{}',
    NULL, NULL, '2025-02-28 10:00:02'),
('00000000-0000-0000-0002-000000000004', '00000000-0000-0000-0001-000000000001', 'user', NULL, 'image',
    '{"url": "https://example.com/conta.jpg", "mimetype": "image/jpeg"}', 'imageMessage', 'user',
    '2025-02-28 10:00:03'),
('00000000-0000-0000-0002-000000000005', '00000000-0000-0000-0001-000000000001', 'user', 'a conta', 'image',
    '[{"url": "https://example.com/conta.jpg", "seconds": "12"}, {"url": "https://example.com/b.jpg"}, 7]', 'IMAGE',
    'lead', NULL),
('00000000-0000-0000-0002-000000000006', '00000000-0000-0000-0001-000000000002', 'user', 'quanto custa?', NULL, '"x"',
    'text', NULL, '2025-01-02 10:00'),
('00000000-0000-0000-0002-000000000007', '00000000-0000-0000-0001-000000000014', 'user', 'a última', NULL, '{}', 'text',
    NULL, '2025-01-14 10:00'),
('00000000-0000-0000-0002-000000000008', NULL, 'user', 'de ninguém', NULL, '{}', NULL, NULL, NULL);
"""

# What only the grown one has: rows that point nowhere, and tables beside.
BESIDE: Final = """
INSERT INTO messages (id, conversation_id, role, content) VALUES
('00000000-0000-0000-0002-000000000009', '00000000-0000-0000-0009-000000000009', 'user', 'órfã');
INSERT INTO follow_ups (lead_id, conversation_id, note) VALUES
('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0001-000000000001', 'ligar amanhã');
INSERT INTO meetings VALUES ('00000000-0000-0000-0000-000000000001', '2025-04-01');
REFRESH MATERIALIZED VIEW stages;
"""

MONOLITHS: Final = {"plain": PLAIN + PEOPLE, "grown": GROWN + PEOPLE + BESIDE}
