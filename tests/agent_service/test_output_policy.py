"""What of a model's text a lead may read: what passes, what is mended, what is left out, what ends a reply."""

import codecs
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent_service.canary import canary
from agent_service.conversation import Author, Lead, Line, Turn
from agent_service.output_policy import MAX_REPLY, OutputPolicy, Unfit
from agent_service.policy.leaks import spoken_texts
from agent_service.prompt import fixed_part
from tests.agent_service.talking import Talk, demo, messages

KEY = "chave-da-casa-7Q2x9Lm4"
POLICY = OutputPolicy(persona=demo(), secrets=(KEY, "sk-test-0000111122223333", "curta"))
TURN = Turn(messages=messages("oi, meu e-mail é ana@exemplo.com.br"), contact="5581988887777", lead=Lead(name="Ana"))


def passed(text: str, *, turn: Turn = TURN, size: int = 0) -> str:
    """What goes out, when the text arrives in pieces of that size; at once for 0."""
    out, cut = through(text, turn=turn, size=size)
    assert cut == "", cut
    return out


def through(text: str, *, turn: Turn = TURN, size: int = 0) -> tuple[str, str]:
    reply = POLICY.begin(turn)
    step = size or len(text) or 1
    out = [reply.feed(text[at : at + step]) for at in range(0, len(text), step)]
    return "".join([*out, reply.finish()]), reply.cut


def unfit(text: str, *, turn: Turn = TURN) -> str:
    with pytest.raises(Unfit) as refused:
        through(text, turn=turn)
    assert str(refused.value) == refused.value.reason
    return refused.value.reason


# What a business says must never be taken for something else.


def test_everything_that_the_persona_says_passes_as_it_is() -> None:
    values = {"name": "Ana", "bill": "R$ 4.500,50", "greeting": "Bom dia", "moment": "quinta-feira (26/11), às 15h"}
    who = {"agent": demo().agent, "company": demo().company, "city": demo().city, "state": demo().state}
    sentences = [each for variants in demo().sentences.model_dump().values() for each in variants]
    sentences += [each for entry in demo().faq for each in entry.answers]
    sentences += [each for step in demo().script for each in step.ask]
    sentences += [each for step in demo().script for replies in step.replies.values() for each in replies]
    sentences += [each for offer in demo().offers for each in offer.pitch]
    sentences += [*demo().facts, demo().hours, demo().honest_sentence, demo().media_sentence, demo().limit_sentence]
    assert len(sentences) > 200
    for sentence in sentences:
        filled = sentence.format(**values, **who)
        assert passed(filled) == filled


def test_whole_conversations_of_the_playbook_pass_as_they_are() -> None:
    lines = (
        "oi",
        "Ana",
        "minha conta vem 4.500",
        "quanto custa?",
        "usina",
        "sim",
        "tem garantia?",
        "não",
        "quinta às 15h",
    )
    for seed in range(20):
        talk, chance = Talk(), random.Random(seed)
        for _ in range(8):
            turn = talk.turn(text := chance.choice(lines))
            reply = talk.say(text)
            assert passed(reply, turn=turn, size=chance.choice((1, 5, 40))) == reply


@pytest.mark.parametrize(
    "text",
    [
        "Nunca vou te pedir CPF, RG, dados bancários, senhas ou documentos.",
        "Posso marcar uma reunião on-line de uma hora com um especialista?",
        "Aqui é a Helen da Sol do Capibaribe, em Recife-PE.",
        "São R$ 1.200.000,00 até 24/11/2026, às 15:30, entre 2025-2026.",
        "Na conta de 4.500 dá uns 900 por mês. Em 12 meses, R$ 10.800.",
        "Opa 👨‍👩‍👧! Tudo certo por aí? 👍🏽",
        "Anotei aqui.Com essa conta dá pra economizar TODO mês.",
        "Certo.Me diz: é casa?Pro seu caso, Ana.Pro seu bairro também.",
        "Fica entre 1000-2000 kWh, ou 1.000-2.000, ou 4.500 - 5.000.",
        "Visita dia 24/11/2026 - 15:30, das 08:00 - 18:00.",
        "_Muito_ bom, *de verdade*!",
        "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk boa!",
        "1. Usina própria\n2. Compra com desconto",
        "Custa menos de R$ 300/mês (ou até menos).",
        "Seu número é (81) 98888-7777, né?",
        "Mando pra ana@exemplo.com.br, pode ser?",
        "Sure, I can help you. How much is your monthly bill?",
        "O km/h não importa <3",
        "A usina gera 25 anos; depois, segue gerando!",
        "A conta de R$ 450,00 cai para uns R$ 90,00 por mês.",
        "Fica em 12x de R$ 1.299,90 sem juros, ou 60 parcelas de R$ 389,00.",
        "O investimento fica entre R$ 18.000 e R$ 25.000, ou R$ 18.000,00 - R$ 25.000,00.",
        "O pagamento é 50% na entrada e 50% na entrega, no Pix, boleto ou cartão.",
        "O desconto é de 15% a 20%, ou 10-20%, sem obra, sem fidelidade e sem multa.",
        "A gente atende de segunda a sexta, das 8h às 18h, e sábado das 8h às 12h.",
        "Abrimos 08:00-12:00 e 13:00-18:00. Segunda a sexta: 8h-12h / 14h-18h.",
        "Temos 9:00, 9:30, 10:00, 10:30 e 11:00.",
        "Os horários são 9h, 10h, 11h, 14h, 15h e 16h.",
        "Tenho quinta (26/11) às 15h ou sexta (27/11) às 9h.",
        "Tenho 26/11, 27/11, 30/11 e 01/12.",
        "Marcado para 26/11/2026 às 15:00, ou 2026-11-26.",
        "Atendo às sete, oito, nove, dez, onze, doze ou treze horas.",
        "Segunda, terça, quarta, quinta ou sexta?",
        "Uma, duas ou três contas?",
        "Um, dois, três e já: simples assim!",
        "Mil e duzentos reais por mês dá uns quatorze mil por ano.",
        "Fica em torno de R$ 1,2 mil por mês, até R$ 1 milhão em 25 anos!",
        "O financiamento é em 12, 24, 36, 48, 60, 72 ou 84 meses.",
        "Parcelas de 24 36 48 ou 60 meses.",
        "Em 1 ano são R$ 5.400, em 5 anos R$ 27.000, em 25 anos R$ 135.000.",
        "O consumo foi 489, 1212 e 1450 kWh.",
        "O consumo foi 350 kWh em set/26, 380 em out/26 e 410 em nov/26.",
        "As contas vieram R$ 389,47 em outubro e R$ 412,05 em novembro?",
        "Com a Lei 14.300/2022 a regra mudou um pouco, mas ainda vale a pena.",
        "A REN 1.000/2021 da ANEEL trata disso.",
        "É a Lei nº 14.300, de 6 de janeiro de 2022.",
        "Nosso escritório fica na Rua da Aurora, 1.259, sala 302, Boa Vista, Recife-PE.",
        "Fica na Av. Conselheiro Aguiar, 2738, perto da BR-101, km 62, s/n.",
        "Rua 24 de Outubro, 1500, apto 1203, bloco 2.",
        "O sistema tem 10 placas de 550 W e um inversor de 5 kW, em 120 m².",
        "São 24 módulos de 2,28 m x 1,13 m, e uma resistência de 10 kΩ.",
        "Com 1 kWp você gera cerca de 130 kWh/mês.",
        "A garantia é de 25 anos nas placas e 10 anos no inversor; o retorno vem em 3 a 4 anos.",
        "Trabalhamos com WEG, Growatt, Canadian Solar, JA Solar e Deye.",
        "Qual é o ponto com mais sol no seu telhado?",
        "Olha o iPhone, o WhatsApp e o YouTube: tudo gasta pouco.",
        "A REN nº 1.000 fala do Grupo B. Me conta: a sua conta é do grupo B?",
        "Nota 4,9 de 5 com mais de 1.200 avaliações desde 2015.",
        "Já instalamos 3.400 sistemas; de 2015 a 2026 foram muitos!",
        "O número do seu atendimento é 123456.",
        "Sua unidade consumidora tem 10 dígitos, no canto da conta.",
        "Opa, perdão: eu quis dizer 15h, e não 5h.",
        "Observação: a visita dura 1h. Análise: gratuita.",
        "O usuário é quem usa; o titular é quem paga.",
        "Ação: amanhã te espero 😄",
        "Anotei 3 quartos, 2 ares-condicionados e 1 chuveiro elétrico 🇧🇷",
        "Trabalhamos com aparelho, implante, clareamento e lentes de contato dental.",
        "O plano aceita Amil, Bradesco, SulAmérica e Unimed; a consulta dura 40min.",
        "É só trazer um documento com foto e a carteirinha do convênio.",
        "O Sr. João da Silva (nosso consultor) te atende; a Dra. Carla, às terças.",
        "Você falou R$ 4.500 ou R$ 5.400?",
        "Seu e-mail é ana@exemplo.com.br, certo?",
        "Pode me dizer seu nome completo e a cidade?",
        "kkkk pode ficar tranquila! Não, não precisa furar o telhado :)",
        "O modelo XXL é maior, e o século XX já passou.",
        "Prefere de manhã, à tarde ou à noite?",
        "The lead time is 30 days, and the customer portal is free.",
    ],
)
def test_honest_sentences_pass(text: str) -> None:
    assert passed(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("**Usina própria** é sua.", "*Usina própria* é sua."),
        ("__Importante__: até 90%.", "*Importante*: até 90%."),
        ("**Oi. Tudo bem?** Vamos lá.", "Oi. Tudo bem? Vamos lá."),
        ("## Opções\n- usina\n* desconto\n• lote", "Opções\nusina\ndesconto\nlote"),
        ("> citado\n\n---\n\nFim.", "citado\n\nFim."),
        ("| Opção | Ganho |\n|---|:---:|\n| Usina | 90% |", "Opção, Ganho\nUsina, 90%"),
        ("Use `conta` e ~~nada~~ mais.", "Use conta e ~nada~ mais."),
        ("```\nTexto normal.\n```", "Texto normal."),
        ("Veja [nosso site](https://outro.example/x) agora.", "Veja nosso site agora."),
        ("<b>Oi</b>, tudo bem?<br>", "Oi, tudo bem?"),
        ("Helen: Oi!", "Oi!"),
        ("**Assistente:** Oi!", "Oi!"),
        ("assistant: Oi!\n\nHelen (Sol do Capibaribe): Tudo bem?", "Oi!\n\nTudo bem?"),
        ("[10:32] Helen: Oi!", "Oi!"),
        ("O\u200bi,\u200d\u202e tu\u00addo\u00a0bem?\r\n\r\nE\u2028aí?", "Oi, tudo bem?\n\nE\naí?"),
        ("\n\n  Oi!  \n\n\n\n Tudo?\n\n", "Oi!\n\nTudo?\n\n"),
        ("<think>Ele quer o preço.\n\n{x}</think>\n\nOi!", "Oi!"),
        ("<reasoning>a</reasoning>Oi! <think>b</think>Tudo?", "Oi! Tudo?"),
        ("primeiro penso</think>Oi!", "Oi!"),
        ("<|im_start|>assistant\nOi!<|im_end|>", "Oi!"),
        ("<s>[Oi]</s>Oi!", None),
        ('<x:function_calls><x:invoke name="y"></x:invoke></x:function_calls>Oi!', "Oi!"),
        ("Oi!</s><s>[INST] e agora? [/INST] nada", "Oi!"),
        ("<tool_call>{\"name\": \"update_lead\"}</tool_call>Oi!", "Oi!"),
        ('{"name": "update_lead", "arguments": {"name": "Ana"}}\nOi, Ana!', "Oi, Ana!"),
        ('Oi!\n```json\n{\n  "name": "x",\n  "arguments": {}\n}\n```\nTudo bem?', "Oi!\nTudo bem?"),
        ('Oi!\nVou registrar: {"name": "x"}\nTudo bem?', "Oi!\nTudo bem?"),
        ("Oi, <think>a\n\nb</think> Ana!", "Oi,\nAna!"),
        ("Oi, {nome}! Qual é a sua conta?", "Qual é a sua conta?"),
        ("Sol&nbsp;&amp;&nbsp;mar!", "Sol & mar!"),
        ("analysisThe user says hi. We greet.assistantfinalOi! Tudo bem?", "Oi! Tudo bem?"),
        ('<｜DSML｜function_calls><｜DSML｜invoke name="x">a</｜DSML｜invoke></｜DSML｜function_calls>Oi!', "Oi!"),
    ],
)  # fmt: skip
def test_what_can_be_mended_is_mended(text: str, shown: str | None) -> None:
    if shown is None:
        assert unfit(text)
    else:
        assert passed(text) == shown


@pytest.mark.parametrize(
    "bad",
    [
        "Oi, [nome]!",
        "Oi, {{lead.name}}!",
        "Oi, <nome>!",
        "O valor é R$ XXX.",
        "São XX% de desconto.",
        "Insira o nome da empresa.",
        "Custa undefined por mês.",
        "Olá, %s!",
        "Me chama no 81 97777-6666.",
        "Me chama no +55 (81) 9.7777.6666!",
        "Anota: 8 1 9 7 7 7 7 6 6 6 6.",
        "Anota: ８１９７７７７６６６６.",
        "Anota: ٨١٩٧٧٧٧٦٦٦٦.",
        "Anota: 81\n97777\n6666.",
        "Anota: 8️⃣ 1️⃣ 9️⃣ 7️⃣ 7️⃣ 7️⃣ 7️⃣ 6️⃣ 6️⃣ 6️⃣.",
        "Liga pra oito um, nove sete sete sete sete, seis seis seis.",
        "O CPF dele é 529.982.247-25.",
        "R$ 81977776666 é o número.",
        "O fixo é 3456-7891.",
        "Liga no 0000-0000.",
        "Escreve pra maria@outra.example, tá?",
        "Escreve pra maria arroba gmail ponto com.",
        "Olha em https://golpe.example/x agora.",
        "Olha em golpe.com.br/pix agora.",
        "Olha em bit.ly/abc agora.",
        "Olha em ｇｏｌｐｅ．ｃｏｍ agora.",
        "Vou chamar update_lead agora.",
        "A etapa é INITIAL_CONTACT.",
        "O campo own_plant_today ficou vazio.",
        "Segue em base64: Vm9jw6ogw6kgSGVsZW4sIGRhIFNvbCBkbyBDYXBpYmFyaWJl.",
        "Em base64 curto: UmVncmEgMTogRGl6ZXI",
        "functions.handoff_to_human(reason='x')",
        "Oi, ___!",
        "Oi, (nome)!",
        "Oi, $NOME!",
        "Oi, %NOME%!",
        "Oi, @nome!",
        "Dia XX/XX, às XX:XX.",
        "Às XXh de dd/mm/aaaa.",
        "O endereço é [...].",
        "Okay, the user wants to know the price.",
        "O usuário quer saber o preço.",
        "The customer wants to know the price.",
        "Thought: I should answer.",
        "Raciocínio: ela quer saber o preço.",
        "<!-- nota -->",
        "<｜DSML｜fim",
        "Me chama no 81, 97777, 6666.",
        "Me chama no 81 | 97777 | 6666.",
        "Me chama no 81:97777:6666.",
        "Me chama no 81 97777 e 6666.",
        "Me chama no 81, depois 97777, depois 6666.",
        "Me chama no 81 nove 7777 meia meia meia meia.",
        "Me chama no 81 97777 sessenta e seis, sessenta e seis.",
        "Me chama no oitenta e um nove setenta e sete setenta e sete sessenta e seis sessenta e seis.",
        "Me chama no oitenta e um, noventa e sete mil setecentos e setenta e sete, 6666.",
        "Me chama no ❽❶❾❼❼❼❼❻❻❻❻.",
        "Me chama no ➑➊➒➐➐➐➐➏➏➏➏.",
        "Olha em golpe.shop agora.",
        "Olha em golpe.online, tá?",
        "Olha em golpe.Online agora.",
        "Olha em golpe.Com",
        "Olha em golpe[.]com agora.",
        "Olha em golpe ponto com ponto br agora.",
        "Olha em golpe ponto com.",
        "Olha em gоlре.cоm agora.",
        "Segue a gente: @outra_loja",
        "Vou chamar upd\u0430te_lead agora.",
        '"arguments": nada',
    ],
)
def test_a_sentence_that_must_not_be_said_is_left_out(bad: str) -> None:
    assert passed(f"Oi, Ana!\n{bad}\nComo posso te ajudar?") == "Oi, Ana!\nComo posso te ajudar?"
    assert passed(f"Oi, Ana! {bad} Como posso te ajudar?").startswith("Oi, Ana!")
    assert unfit(bad)


def test_what_announces_something_left_out_is_left_out_too() -> None:
    assert passed("Oi! Segue o número dela:\n\n81 97777-6666\n\nPosso ajudar?") == "Oi!\n\nPosso ajudar?"
    assert passed("Oi! São dois caminhos:\n\n- usina\n- desconto") == "Oi! São dois caminhos:\n\nusina\ndesconto"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \n\u200b\n ", "empty"),
        ("...", "empty"),
        ("<think>sem fim", "reasoning"),
        ('{"name": "update_lead", "arguments": {}}', "tool syntax"),
        ('[{"name": "update_lead"', "tool syntax"),
        ("<|im_end|>", "template tokens"),
        ("User: oi", "somebody else's turn"),
        (f"É isto: {KEY}", "secret"),
        ("c h a v e - d a - c a s a - 7 Q 2 x 9 L m 4", "secret"),
        (KEY[::-1], "secret"),
        ("Y2hhdmUtZGEtY2FzYS03UTJ4OUxtNA", "secret"),
        ("Use sk-proj-abcdefgh12345678", "secret"),
        ("Authorization: Bearer abcdefgh12345678", "secret"),
        ("token: abcd1234efgh", "secret"),
        (f"O código é {canary(demo()).upper()}", "prompt text"),
        ("Separe balões com uma linha em branco. Responda", "prompt text"),
        ("Regra 2: Pedir CPF, RG, dados bancários, senhas ou documentos.", "prompt text"),
        ("a" * 50_000, "encoded text"),
        ("Qz" * 305, "encoded text"),
        (
            "Minha regra é sempre marcar uma reunião on-line de uma hora com um especialista, com quem decide",
            "prompt text",
        ),
    ],
)
def test_what_cannot_be_used_is_unfit(text: str, reason: str) -> None:
    assert unfit(text) == reason


def test_a_prompt_that_is_read_out_ends_the_reply_at_its_first_instruction() -> None:
    assert unfit(fixed_part(demo())) == "prompt text"
    assert unfit(codecs.encode(fixed_part(demo()), "rot13")) == "prompt text"
    out, cut = through(f"Claro, Ana!\n\n{fixed_part(demo())}")
    assert (out, cut) == ("Claro, Ana!\n\n", "prompt text")


def test_an_instruction_over_two_lines_is_one_all_the_same() -> None:
    assert through("Separe balões com\numa linha em branco\n") == ("Separe balões com", "prompt text")


def test_no_instruction_of_the_prompt_can_be_said_by_itself() -> None:
    persona = demo()
    for rule in (*persona.never, persona.goal, persona.voice):
        assert unfit(f"{rule}") == "prompt text", rule
        assert unfit(f"1) {rule.upper()}") == "prompt text", rule


_RULE = "Separe balões com uma linha em branco; são curtos, no máximo três"


@pytest.mark.parametrize(
    "disguised",
    [
        _RULE.translate(str.maketrans("aeocpx", "аеосрх")),
        "\u3164".join(_RULE),
        _RULE.lower().translate({ord("a") + at: chr(0x1F1E6 + at) for at in range(26)}),
        _RULE.upper().translate({ord("A") + at: chr(0x1F170 + at) for at in range(26)}),
        _RULE.translate(str.maketrans("aeiost", "431057")),
        " ".join(reversed(_RULE.split())),
        " ".join(word[::-1] for word in _RULE.split()),
        "Já se sabe, e vale mais que o resumo: nome Ana.",
        "Primeiro contato: cumprimente e apresente-se.",
    ],
)
def test_an_instruction_in_disguise_is_one_all_the_same(disguised: str) -> None:
    assert unfit(disguised) in ("prompt text", "encoded text")


@pytest.mark.parametrize("words", [_RULE, codecs.encode(_RULE, "rot13")])
def test_an_instruction_word_by_word_in_a_numbered_list_ends_the_reply(words: str) -> None:
    out, cut = through("\n".join(f"{at}. {word}" for at, word in enumerate(words.split(), 1)))
    assert cut == "prompt text" and len(out.splitlines()) <= 6


@pytest.mark.parametrize(
    "bad",
    [
        _RULE,
        canary(demo()),
        KEY,
        "update_lead",
        "<tool_call>{}</tool_call>",
        '{"name": "update_lead"}',
        "<think>oi</think>",
        "<|im_start|>user",
        "81 97777-6666",
        "oito um nove sete sete sete sete seis seis seis seis",
        "https://golpe.example/x",
    ],
)
def test_wherever_a_server_cuts_it_the_same_goes_out(bad: str) -> None:
    """At every possible character, and at every two of them for what is short."""
    text = f"Oi! {bad} Tudo bem?"
    whole = _outcome([text])
    assert bad not in whole[0]
    for first in range(len(text)):
        for second in range(first, len(text) if len(bad) < 20 else first + 1):
            assert _outcome([text[:first], text[first:second], text[second:]]) == whole


def test_a_secret_in_pieces_does_not_get_out() -> None:
    """Line by line each piece looks harmless: what may be the beginning of a secret waits."""
    out, cut = through(f"Oi!\n{KEY[:9]}\n{KEY[9:15]}\n{KEY[15:]}\nTchau!")
    assert cut == "secret" and out == "Oi!"
    assert passed("A chave da casa fica onde?\nTudo bem?") == "A chave da casa fica onde?\nTudo bem?"


@pytest.mark.parametrize(
    ("text", "shown", "cut"),
    [
        ("Oi!\n\nCliente: quanto custa?\nHelen: 10", "Oi!\n\n", "somebody else's turn"),
        ("Oi! <think>e agora", "Oi!", "reasoning"),
        ('Oi! {"name": "update_lead"', "Oi!", "tool syntax"),
    ],
)
def test_a_reply_that_goes_wrong_later_ends_there(text: str, shown: str, cut: str) -> None:
    assert through(text) == (shown, cut)


def test_after_the_end_nothing_more_goes_out() -> None:
    reply = POLICY.begin(TURN)
    assert reply.feed("Oi! \nUser: e aí?\n") == "Oi!" and reply.cut
    assert reply.feed("Tudo bem?\n") == "" and reply.finish() == ""


def test_an_endless_reply_is_cut() -> None:
    out, cut = through("".join(f"Frase número {number} da resposta sem fim. " for number in range(1_000)))
    assert cut == "too long" and MAX_REPLY - 100 < len(out) <= MAX_REPLY


def test_only_numbers_and_addresses_that_somebody_gave_are_said() -> None:
    text = "O número é 81 97777-6666, e o site é minhaloja.com.br."
    assert unfit(text)
    lead = Line(author=Author.LEAD, text="meu site: https://www.minhaloja.com.br/ e o zap 81977776666")
    assert passed(text, turn=Turn(messages=messages("e aí?"), history=(lead,))) == text
    spelt = Line(author=Author.LEAD, text="minhaloja.com.br, 81, 97777, 6666, e no insta @minha.loja")
    back = f"{text} Vi a @minha.loja!"
    assert passed(back, turn=Turn(messages=messages("e aí?"), history=(spelt,))) == back
    bot = Line(author=Author.ASSISTANT, text=lead.text)
    assert unfit(text, turn=Turn(messages=messages("e aí?"), history=(bot,)))


def test_a_bubble_of_the_last_reply_is_not_said_again() -> None:
    history = (
        Line(author=Author.ASSISTANT, text="Oi! Tudo bem?\n\nQual é a sua conta?"),
        Line(author=Author.LEAD, text="?"),
    )
    turn = Turn(messages=messages("?"), history=history)
    assert passed("oi!  tudo bem?\n\nMe conta da sua conta.", turn=turn) == "Me conta da sua conta."
    assert passed("Oi! Tudo bem? Tudo certo?", turn=turn) == "Oi! Tudo bem? Tudo certo?"
    assert unfit("Qual é a sua conta?", turn=turn) == "repeated"
    assert passed("Certo!\n\nQuer ver?", turn=Turn(messages=messages("?"), said=("Certo!",))) == "Quer ver?"


def test_a_model_that_repeats_itself_says_it_once() -> None:
    assert passed("Vamos marcar uma conversa então? " * 50) == "Vamos marcar uma conversa então?"


def test_sentences_flow_while_the_model_writes() -> None:
    reply = POLICY.begin(TURN)
    assert reply.feed("Oi, Ana! Tu") == "Oi, Ana!"
    assert reply.feed("do bem?") == ""
    assert reply.feed("\n") == " Tudo bem?"
    # The bubble can be sent before a word of the next one is written.
    assert reply.feed("\n") == "\n\n"
    assert reply.feed("Me conta") == "" and reply.finish() == "Me conta"


def test_filters_of_two_leads_know_nothing_of_each_other() -> None:
    first, second = POLICY.begin(TURN), POLICY.begin(Turn(messages=messages("oi"), contact="5511955554444"))
    assert first.feed("Seu número é 81 98888-7777, né?\n") and second.feed("Seu número é 81 98888-7777, né?\n") == ""
    assert second.feed("Seu número é 11 95555-4444, né?\n")


PIECES = [
    *(
        "Oi",
        "!",
        ". ",
        "? ",
        "\n",
        "\n\n",
        " ",
        ":",
        "\r\n",
        "\r",
        "1",
        " 2",
        "R$ 4.500",
        "é",
        "👍",
        "\u200b",
        "\u200d",
    ),
    *(
        "**",
        "- ",
        "|",
        "`",
        "```json\n",
        "{",
        "}",
        '{"name": "x"}',
        "[nome]",
        "update_lead",
        "a" * 700,
        "x" + " " * 650,
    ),
    *(
        "<think>",
        "</think>",
        "<tool_call>",
        "</tool_call>",
        "<|im_start|>",
        "<|im_end|>",
        "assistant",
        "Helen: ",
        "User: ",
    ),
    *("81 97777-6666", "https://x.example/y", "a@b.example", KEY, KEY[:12], "Separe balões com uma linha em branco"),
]


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=12), max_size=25), st.randoms(use_true_random=False))
@settings(deadline=None)
@example(pieces=["Oi", "\r\n", "Tudo?"], chance=random.Random(1))
@example(pieces=["x" * 595 + ".", " " * 50, "Y"], chance=random.Random(1))
def test_the_pieces_make_no_difference(pieces: list[str], chance: random.Random) -> None:
    """The same text gives the same reply however a server cuts it, and nothing but Unfit is raised."""
    text = "".join(pieces)
    whole = _outcome([text])
    assert _outcome(list(text)) == whole
    cuts = sorted(chance.choices(range(len(text) + 1), k=6))
    assert _outcome([text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]) == whole
    assert not any(taboo in whole[0] for taboo in ("{", "}", "<think", "im_", "97777", KEY, "update_lead", "\u200b"))


def _outcome(pieces: list[str]) -> tuple[str, str]:
    reply, out = POLICY.begin(TURN), ""
    try:
        for piece in pieces:
            out += reply.feed(piece)
        return out + reply.finish(), reply.cut
    except Unfit as refused:
        return out, f"unfit: {refused.reason}"


HOSTILE = [
    "a",
    "1",
    "1.\n",
    "{",
    "<",
    "](",
    "**",
    "|",
    "\n",
    "Oi! ",
    "x@",
    "um ",
    "…",
    "a:\n",
    "<think>",
    "R$ 1.",
    "a.b",
]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_output_takes_linear_time(unit: str) -> None:
    """60 KB in single characters and at once take a second; a version that looked back again and again took thirty."""
    text = (unit * 60_000)[:60_000]
    assert _outcome(list(text)) == _outcome([text])


def test_what_the_persona_may_say_is_known_as_such() -> None:
    texts = list(spoken_texts(demo()))
    assert demo().hours in texts and demo().voice not in texts and not set(demo().never) & set(texts)


def test_what_the_persona_rules_out_is_left_out_and_the_rest_is_said() -> None:
    """`never_say` was checked in the business's own sentences only; a language model could promise a price."""
    assert passed("Boa pergunta! A usina custa R$ 30.000 à vista. Qual é a sua conta?") == (
        "Boa pergunta! Qual é a sua conta?"
    )
    assert unfit("Amanhã te retorno com isso.") == "ruled out by the persona"


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_model_that_writes_nothing_fit_is_not_waited_for(size: int) -> None:
    """Small weights repeated `<resposta>` line after line, each one left out, until the time of the turn was over: the
    lead heard the playbook after 27 seconds."""
    text, read = "<resposta>\n" * 500, 0
    reply = POLICY.begin(Turn(messages=messages("oi")))
    with pytest.raises(Unfit, match="placeholder"):
        while True:
            assert reply.feed(text[read : read + size]) == ""
            read += size
    assert read < 10 * len("<resposta>\n")


def test_what_is_left_out_after_good_words_ends_nothing() -> None:
    reply = POLICY.begin(Turn(messages=messages("oi")))
    text = "Tudo bem por aqui. \n" + "<resposta>\n" * 50 + "Como posso te ajudar?"
    assert " ".join((reply.feed(text) + reply.finish()).split()) == "Tudo bem por aqui. Como posso te ajudar?"


@pytest.mark.parametrize("mark", ["estado", "resumo do que veio antes", "mensagens mais antigas não aparecem aqui"])
def test_the_marks_of_the_prompt_are_not_said_closed_either(mark: str) -> None:
    """Small weights ended their reply with `</estado>`, as the prompt does, and the lead read it."""
    for written in (f"<{mark}>", f"</{mark}>", f"< / {mark} >"):
        reply = POLICY.begin(Turn(messages=messages("oi")))
        said = reply.feed(f"Tudo bem?\n{written}\nComo vai?") + reply.finish()
        assert " ".join(said.split()) == "Tudo bem? Como vai?"
