"""A chat template for base models, which only continue what they read."""

# The dialogue is the example: a base model goes on with it. No word of any business: the persona comes in as `system`.
COMPLETION_TEMPLATE = """\
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{{ message.content }}

Conversa no WhatsApp entre o cliente e o atendente.

Cliente: oi, tudo bem?
Atendente: Oi! Tudo bem, e com você? Como posso ajudar?
{% elif message.role == 'assistant' -%}
Atendente: {{ message.content }}
{% elif message.role == 'user' -%}
Cliente: {{ message.content }}
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
Atendente:
{%- endif -%}
"""
# Without a token for the end of a turn the model would write the lead's next line too.
COMPLETION_STOPS = ("\nCliente:", "\nAtendente:")
