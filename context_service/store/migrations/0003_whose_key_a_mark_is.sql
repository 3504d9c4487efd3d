-- With which key a mark was made: with another one nobody is recognised by it, and the wish would be lost unnoticed.

ALTER TABLE do_not_contact ADD COLUMN key_id TEXT NOT NULL DEFAULT '';
