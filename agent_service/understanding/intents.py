"""What a message wants, as far as that is the same for every business."""

import re
from enum import Enum

from agent_service.understanding.text import fold, sentences


class Answer(Enum):
    """How a closed question was answered."""

    YES = "sim"
    NO = "não"
    UNSURE = "não sabe"


class Intent(Enum):
    """Things that a message may want besides information."""

    GREETING = "greeting"
    THANKS = "thanks"
    LATER = "later"
    HUMAN = "human"
    COMPLAINT = "complaint"
    REFUSAL = "refusal"
    INTEREST = "interest"
    CORRECTION = "correction"


_PEOPLE = (
    r"(?:human[oa]|atendente|pessoa|alguem|gente|gerente|vendedora?|consultora?|especialista|responsavel|dono"
    r"|supervisora?|operadora?)"
)
_PATTERNS: dict[Intent, re.Pattern[str]] = {
    Intent.GREETING: re.compile(
        r"^\W*(?:oi+e?|ola|opa|oie|e ai|eai|hello|hey|ei|alo|bom dia|boa tarde|boa noite|buenas|fala ai|salve)\b"
        r"|\b(?:voces?|vcs?|ce|alguem) (?:ainda )?(?:ta|esta|tao|estao) ai\b|\bcade (?:voce|vc)\b"
        r"|^\W*(?:me )?responde\W*$"
    ),
    Intent.THANKS: re.compile(
        r"\b(?:obrigad[oa]s?|obg|brigad[oa]|valeu|vlw|agradeco|grat[oa] "
        r"|deus (?:te|lhe|vos) (?:abencoe|pague)|amem)\b"
    ),
    Intent.LATER: re.compile(
        r"\b(?:tchau|ate (?:mais|logo|breve|amanha)|(?:falamos|falo) (?:depois|dps)|(?:depois|dps) (?:eu )?(?:te )?"
        r"(?:falo|chamo|vejo|retorno|respondo)"
        r"|(?:agora|hoje|hj) (?:eu )?(?:nao|n) (?:posso|da|consigo)"
        r"|(?:nao|n) (?:posso|consigo) (?:falar )?(?:agora|hoje|hj)|to ocupad[oa]|estou ocupad[oa]|vou pensar"
        r"|preciso pensar|vou ver (?:aqui )?e"
        r"|deixa (?:eu|pra) (?:pensar|depois)|mais tarde (?:eu )?(?:falo|chamo|respondo|te)|boa noite,? (?:ate"
        r"|tchau))\b"
    ),
    Intent.HUMAN: re.compile(
        rf"\b(?:(?:falar|conversar|fala|atendid[oa]|atendimento|atenda|passa\w*|chama\w*|transfere|transferir"
        rf"|coloca)\s+(?:(?!meu|minha|noss)\w+\s+){{0,4}}?{_PEOPLE}"
        rf"|quero\s+(?:um|uma|o|a)\s+(?:atendente|humano|humana|pessoa de verdade|pessoa real|gerente|vendedora?)"
        rf"|atendimento humano|pessoa (?:de verdade|real)|ser humano|nao quero (?:falar com )?(?:robo|bot|maquina|ia)"
        rf"|tem (?:um|alguma?|uma)?\s*(?:humano|atendente|pessoa|alguem)\s+(?:ai|pra|para|que)|me liga|me ligue"
        rf"|pode (?:me )?ligar|podem ligar|liga pra mim)\b"
    ),
    Intent.COMPLAINT: re.compile(
        r"\b(?:procon|reclame aqui|reclamacao|reclamar|vou processar|processo (?:contra|judicial)|advogado (?:vai"
        r"|meu)|meu advogado|na justica"
        r"|pessimo|pessima|horrivel|ridiculo|absurdo|palhacada|falta de respeito|desrespeito|enganad[oa]"
        r"|fui lesad[oa]|me enganaram|denunciar|ninguem (?:me |nos )?(?:resolve|responde|atende|retorna)"
        r"|(?:segunda|terceira|quarta|quinta|decima) vez que (?:eu )?(?:falo|ligo|escrevo|reclamo|chamo|tento))\b"
    ),
    Intent.REFUSAL: re.compile(
        r"\b(?:nao (?:tenho|temos|to com|estou com|ha)(?: mais)?(?: nenhum)? interesse|sem interesse"
        r"|nao (?:me )?interessa|nao estou interessad[oa]|nao to interessad[oa]"
        r"|desisti|desisto|(?:para|pare|parem) de (?:me )?(?:mandar|enviar|encher|chamar|perturbar)"
        r"|nao (?:me )?(?:manda|mande|mandem|envie|enviem|chame|perturbe)"
        r"|me deix(?:a|e|em) em paz|sai(?:am)? daqui|ench\w+ (?:(?:o|a|meu|minha) )?(?:saco|paciencia)"
        r"|me (?:tira|tire|remove|remova)|descadastr\w+|nao quero (?:mais|nada|saber|isso|receber|participar"
        r"|nao)|perdi o interesse|deixa (?:pra la|quieto)"
        r"|nao vou querer)\b|\bnao quero\W*$|^\W*nao,? (?:muito )?obrigad[oa]\W*$"
        r"|^\W*(?:sair|stop|parar|pare|cancelar)\W*$"
    ),
    Intent.INTEREST: re.compile(
        r"\b(?:mudei de ideia|(?:tenho|temos|to com|estou com) interesse|me interess(?:a|ei|ou)|(?:estou|to"
        r"|fiquei|continuo) interessad[oa]|quero sim|vamos continuar"
        r"|quero (?:fechar|contratar|continuar|marcar|agendar|economizar|participar|fazer|retomar)|gostei"
        r"|vamos marcar)\b"
    ),
    Intent.CORRECTION: re.compile(
        r"\b(?:na verdade|alias|ops|corrigindo|correcao|errei|quer dizer|digo|desculpa|ou melhor)\b|^\W*nao\b"
    ),
}
_GRUMBLE = re.compile(r"\b(?:absurd[oa]|horrivel|pessim[oa]|ridicul[oa]|palhacada|desrespeito)\b")
_NEGATED_INTEREST = re.compile(
    r"\b(?:nao|sem|nunca|nem|perdi)\s+(?:\w+\s+){0,2}(?:interesse|interess\w+|gostei|quero)\b"
)
_UNSURE = re.compile(
    r"\b(?:nao sei|sei nao|nao lembro|nao faco ideia|nao tenho certeza|talvez|depende|sei la|nao tenho ideia|tanto faz"
    r"|nao conheco)\b"
)
_YES = re.compile(
    r"^\W*(?:(?:ah|entao|acho que|eu|opa|bom|olha|e|ja|ne)[\s,]+)*(?:s+i+m+|ss|claro|com certeza|isso|exato"
    r"|exatamente|pode(?: ser| sim)?|quero|queremos|aceito|tenho|temos"
    r"|aham|uhum|ok|okay|beleza|blz|bora|vamos|top|show|perfeito|otimo|faz|gostei|legal|certo|positivo|sou"
    r"|combinado|fechado|fechou|vou|vai|vamos"
    r"|estarei|estou|consigo|da sim|interessa|tem|massa|joia|existe|participa|participo"
    r"|ta (?:bom|certo|ok|otimo|joia|beleza|sim)|ta(?=\s*(?:$|[,.!;])))\b"
    r"|^\W*[👍👌✅🙌🤝]"
)
_NO = re.compile(
    r"^\W*(?:(?:ah|entao|acho que|eu|opa|bom|olha|por enquanto|infelizmente|ainda|tambem|tbm|tb)[\s,]+)*(?:nao+|n+|nn"
    r"|nunca|negativo|nem|nenhum[a]?|nada|de jeito nenhum|so (?:a|o|essa|esse)|apenas)\b"
    r"|^\W*👎"
)
# "tenho não", as in the Northeast; "tem problema não" denies nothing.
_ENDS_NO = re.compile(
    r"^\W*(?:(?:ah|eu|ja|olha|ainda)[\s,]+)*(?:tenho|temos|tem|quero|faz|sou|vou|vai|consigo|participa|existe|recebo|pago"
    r"|posso|pode|preciso|gosto|gostei|precisa|estou|to)(?:\s+(?!problema|mal|sim)\w+){0,3}\s+nao\W*$"
)
_ENDS_YES = re.compile(r"\b(?:sim|claro|com certeza|pode ser)\W*$")
_QUESTION = re.compile(
    r"\?|^\W*(?:(?:e|mas|entao|oi|ola|bom dia|boa tarde|boa noite|me diz|me fala|me diga|gostaria de saber"
    r"|queria saber|quero saber|quero entender|preciso saber"
    r"|tenho uma duvida|duvida)[\s,:]+)*(?:como|(?:de |por )?quanto|qto|qnto|quantos|quantas|qual|quais|quando|onde"
    r"|quem|por que|pq|porque|o que|oq|sera que|voces|vcs|vc|tem como|da pra|e possivel)\b"
    r"|\bnao (?:entendi|ficou claro|entendo|to entendendo)\b"
    r"|\b(?:me|pode|podia|poderia)\s+(?:explic\w+|tirar uma duvida)"
    r"|\b(?:quero|queria|gostaria de"
    r"|preciso) (?:saber|entender|tirar)\b"
)


def intents(text: str) -> frozenset[Intent]:
    """Everything that the message wants."""
    folded = fold(text)
    found = {intent for intent, pattern in _PATTERNS.items() if pattern.search(folded)}
    if Intent.INTEREST in found and (_NEGATED_INTEREST.search(folded) or Intent.REFUSAL in found):
        found.discard(Intent.INTEREST)
    return frozenset(found)


def grumbles_about(text: str, topic: re.Pattern[str]) -> bool:
    """Whether the strong words are meant for the topic and not for us: "a conta tá um absurdo"."""
    strong = [each for each in sentences(text) if Intent.COMPLAINT in intents(each)]
    return bool(strong) and all(
        topic.search(fold(each)) and not _PATTERNS[Intent.COMPLAINT].search(_GRUMBLE.sub(" ", fold(each)))
        for each in strong
    )


def read_answer(text: str) -> Answer | None:
    """Yes, no or unsure, read from the sentences that are no questions; the last one that answers counts."""
    answer = None
    for sentence in sentences(text):
        if not sentence.endswith("?"):
            answer = _answer_of(fold(sentence)) or answer
    return answer


def is_question(sentence: str) -> bool:
    """Whether the sentence asks for something."""
    return _QUESTION.search(fold(sentence)) is not None


def _answer_of(folded: str) -> Answer | None:
    if _UNSURE.search(folded):
        return Answer.UNSURE
    if _NO.match(folded) or _ENDS_NO.match(folded):
        return Answer.NO
    if _YES.match(folded) or _ENDS_YES.search(folded):
        return Answer.YES
    return None
