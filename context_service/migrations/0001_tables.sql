-- The three tables, with the names and columns of the system that this one takes over. Where they exist they stay as
-- they are, with all that is in them.

CREATE TABLE IF NOT EXISTS public.leads (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    phone_number         varchar(50) UNIQUE NOT NULL,
    name                 varchar(100),
    email                varchar(100),
    bill_value           numeric(10, 2),
    current_stage        varchar(50) DEFAULT 'INITIAL_CONTACT',
    qualification_score  integer DEFAULT 0 CHECK (qualification_score BETWEEN 0 AND 100),
    qualification_status varchar(20) DEFAULT 'PENDING',
    interested           boolean,
    chosen_flow          text,
    preferences          jsonb DEFAULT '{}',
    last_interaction     timestamptz,
    created_at           timestamptz DEFAULT now(),
    updated_at           timestamptz DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.conversations (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    lead_id         uuid REFERENCES public.leads (id) ON DELETE CASCADE,
    session_id      varchar(100) UNIQUE NOT NULL,
    phone_number    varchar(50),
    status          varchar(20) DEFAULT 'ACTIVE',
    is_active       boolean DEFAULT true,
    current_stage   varchar(50),
    emotional_state varchar(50),
    total_messages  integer DEFAULT 0,
    metadata        jsonb DEFAULT '{}',
    started_at      timestamptz DEFAULT now(),
    created_at      timestamptz DEFAULT now(),
    updated_at      timestamptz DEFAULT now()
);

CREATE TABLE IF NOT EXISTS public.messages (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    conversation_id uuid REFERENCES public.conversations (id) ON DELETE CASCADE,
    role            varchar(20) NOT NULL,
    content         text,
    media_type      varchar(50),
    media_data      jsonb,
    message_type    varchar(50),
    sender          varchar(50),
    created_at      timestamptz DEFAULT now()
);
