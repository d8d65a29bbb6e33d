"""Pairs of sentences in five languages, in the raw formats of XNLI and PAWS-X.

The Chinese sentences use the vocabulary of the other generated tasks. The other languages share a small vocabulary in
forms that need no agreement (names, plurals, one tense). The two sentences of a PAWS-X pair have almost the same words;
the label depends on who gives to whom and on the numbers, not on word overlap.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from random import Random
from typing import NamedTuple

from tasks.synthetic import lexicon
from tasks.synthetic.nli import CHINESE, World
from tasks.synthetic.nli import make_pair as inferred

PEOPLE = tuple("Paul Maria David Laura Peter Nina Tom Sara Martin Clara Bruno Lena Felix Julia Karl Rita".split())


class Language(NamedTuple):
    """Vocabulary of a language for inference, and patterns of exchanges for paraphrase."""

    world: World
    people: Sequence[str]
    places: Sequence[str]
    times: Sequence[str]
    numbers: Sequence[str]
    goods: str  # {n} of {x} and {m} of {y}
    deals: Sequence[tuple[str, str]]  # patterns with the giver {a} and with the receiver {b} as subject


def told(pattern: str, some: str, rng: Random, parts: Mapping[str, str], keep: set[str]) -> str:
    """Make a sentence with the segments in `keep`; `some` replaces a number that is not kept."""
    kept = {part: value if part in keep | {"who", "deed", "thing"} else "" for part, value in parts.items()}
    return " ".join(pattern.format(**kept | {"count": kept["count"] or some}).split()).replace(" .", ".")


def european(pattern: str, some: str, places: str, times: str, company: str, numbers: str, kinds: str, deeds: str,
             goods: str, deals: Sequence[tuple[str, str]]) -> Language:  # fmt: skip
    """Make a language from lists with commas; kinds are "kind: members", deeds are "deed, synonym, opposite"."""
    listed = [line.split(", ") for line in (places, times, company, numbers)]
    grouped = {line.split(": ")[0].strip(): line.split(": ")[1].split(", ") for line in kinds.split("; ")}
    done = {first: (same, opposite) for first, same, opposite in (row.split(", ") for row in deeds.split("; "))}
    things = [thing for members in grouped.values() for thing in members]
    parts = {"time": listed[1], "place": listed[0], "deed": tuple(done), "count": listed[3], "company": listed[2]}
    tell = partial(told, pattern, some)
    world = World((PEOPLE,), parts | {"thing": things}, ("time", "place"), grouped, done, tell)
    return Language(world, PEOPLE, listed[0], listed[1], listed[3], goods, deals)


LANGUAGES = {
    "en": european(
        "{who} {deed} {count} {thing} {company} {place} {time}.", "",
        "in Berlin, in Paris, in Madrid, in London, in Rome, in Vienna, in Lisbon, in Prague, in Warsaw, in Athens",
        "on Monday, on Tuesday, on Wednesday, on Thursday, on Friday, on Saturday, on Sunday",
        "with a friend, with a neighbour, with a colleague, with a cousin, with a guest, with a pupil",
        "two, three, four, five, six, seven, eight, nine",
        "animals: cats, dogs, horses, birds, rabbits, goats; flowers: roses, tulips, lilies, carnations, orchids, daisies; "
        "fruits: apples, pears, plums, cherries, lemons, bananas; garments: shirts, skirts, coats, hats, gloves, scarves; "
        "pieces of furniture: tables, chairs, beds, benches, shelves, cupboards; "
        "instruments: guitars, violins, flutes, pianos, drums, trumpets",
        "bought, acquired, sold; found, discovered, lost; liked, enjoyed, hated; drew, sketched, erased; "
        "showed, presented, hid; accepted, took, refused",
        "{n} {x} and {m} {y}",
        (("{a} sold {goods} to {b} {place} {time}.", "{b} bought {goods} from {a} {place} {time}."),
         ("{a} gave {goods} to {b} {place} {time}.", "{b} received {goods} from {a} {place} {time}."),
         ("{a} sent {goods} to {b} {place} {time}.", "{b} got {goods} from {a} {place} {time}.")),
    ),
    "fr": european(
        "{who} {deed} {count} {thing} {company} {place} {time}.", "des",
        "à Berlin, à Paris, à Madrid, à Londres, à Rome, à Vienne, à Lisbonne, à Prague, à Varsovie, à Athènes",
        "lundi, mardi, mercredi, jeudi, vendredi, samedi, dimanche",
        "avec un ami, avec un voisin, avec un collègue, avec un cousin, avec un invité, avec un élève",
        "deux, trois, quatre, cinq, six, sept, huit, neuf",
        "animaux: chats, chiens, chevaux, oiseaux, lapins, chèvres; "
        "fleurs: roses, tulipes, lis, œillets, orchidées, marguerites; "
        "fruits: pommes, poires, prunes, cerises, citrons, bananes; "
        "vêtements: chemises, jupes, manteaux, chapeaux, gants, écharpes; "
        "meubles: tables, chaises, lits, bancs, étagères, armoires; "
        "instruments: guitares, violons, flûtes, pianos, tambours, trompettes",
        "a acheté, a acquis, a vendu; a trouvé, a découvert, a perdu; a aimé, a apprécié, a détesté; "
        "a dessiné, a esquissé, a effacé; a montré, a présenté, a caché; a accepté, a pris, a refusé",
        "{n} {x} et {m} {y}",
        (("{a} a vendu {goods} à {b} {place} {time}.", "{b} a acheté {goods} auprès de {a} {place} {time}."),
         ("{a} a donné {goods} à {b} {place} {time}.", "{b} a reçu {goods} de {a} {place} {time}."),
         ("{a} a envoyé {goods} à {b} {place} {time}.", "{b} a obtenu {goods} de {a} {place} {time}.")),
    ),
    "de": european(
        "{who} {deed} {time} {company} {place} {count} {thing}.", "",
        "in Berlin, in Paris, in Madrid, in London, in Rom, in Wien, in Lissabon, in Prag, in Warschau, in Athen",
        "am Montag, am Dienstag, am Mittwoch, am Donnerstag, am Freitag, am Samstag, am Sonntag",
        "mit einem Freund, mit einem Nachbarn, mit einem Kollegen, mit einem Vetter, mit einem Gast, mit einem Schüler",
        "zwei, drei, vier, fünf, sechs, sieben, acht, neun",
        "Tiere: Katzen, Hunde, Pferde, Vögel, Hasen, Ziegen; "
        "Blumen: Rosen, Tulpen, Lilien, Nelken, Orchideen, Gänseblümchen; "
        "Früchte: Äpfel, Birnen, Pflaumen, Kirschen, Zitronen, Bananen; "
        "Kleidungsstücke: Hemden, Röcke, Mäntel, Hüte, Handschuhe, Schals; "
        "Möbelstücke: Tische, Stühle, Betten, Bänke, Regale, Schränke; "
        "Instrumente: Gitarren, Geigen, Flöten, Klaviere, Trommeln, Trompeten",
        "kaufte, erwarb, verkaufte; fand, entdeckte, verlor; mochte, schätzte, hasste; "
        "zeichnete, skizzierte, löschte; zeigte, präsentierte, versteckte; akzeptierte, nahm, verweigerte",
        "{n} {x} und {m} {y}",
        (("{a} verkaufte {b} {time} {place} {goods}.", "{b} kaufte {time} {place} {goods} von {a}."),
         ("{a} gab {b} {time} {place} {goods}.", "{b} erhielt {time} {place} {goods} von {a}."),
         ("{a} schickte {b} {time} {place} {goods}.", "{b} bekam {time} {place} {goods} von {a}.")),
    ),
    "es": european(
        "{who} {deed} {count} {thing} {company} {place} {time}.", "",
        "en Berlín, en París, en Madrid, en Londres, en Roma, en Viena, en Lisboa, en Praga, en Varsovia, en Atenas",
        "el lunes, el martes, el miércoles, el jueves, el viernes, el sábado, el domingo",
        "con un amigo, con un vecino, con un colega, con un primo, con un invitado, con un alumno",
        "dos, tres, cuatro, cinco, seis, siete, ocho, nueve",
        "animales: gatos, perros, caballos, pájaros, conejos, cabras; "
        "flores: rosas, tulipanes, lirios, claveles, orquídeas, margaritas; "
        "frutas: manzanas, peras, ciruelas, cerezas, limones, plátanos; "
        "prendas: camisas, faldas, abrigos, sombreros, guantes, bufandas; "
        "muebles: mesas, sillas, camas, bancos, estantes, armarios; "
        "instrumentos: guitarras, violines, flautas, pianos, tambores, trompetas",
        "compró, adquirió, vendió; encontró, descubrió, perdió; apreció, valoró, odió; "
        "dibujó, esbozó, borró; mostró, presentó, escondió; aceptó, tomó, rechazó",
        "{n} {x} y {m} {y}",
        (("{a} vendió {goods} a {b} {place} {time}.", "{b} le compró {goods} a {a} {place} {time}."),
         ("{a} dio {goods} a {b} {place} {time}.", "{b} recibió {goods} de {a} {place} {time}."),
         ("{a} envió {goods} a {b} {place} {time}.", "{b} obtuvo {goods} de {a} {place} {time}.")),
    ),
    "zh": Language(
        CHINESE, lexicon.PEOPLE, lexicon.CITIES, lexicon.TIMES, CHINESE.parts["count"], "{n}{x}和{m}{y}",
        (("{time}{a}在{place}卖给{b}{goods}。", "{time}{b}在{place}从{a}那里买了{goods}。"),
         ("{time}{a}在{place}送给{b}{goods}。", "{time}{b}在{place}从{a}那里收到了{goods}。"),
         ("{time}{a}在{place}借给{b}{goods}。", "{time}{b}在{place}从{a}那里借了{goods}。")),
    ),
}  # fmt: skip


def make_nli_pair(rng: Random, label: str, code: str) -> tuple[str, str]:
    """Make (premise, hypothesis) with the label entailment, neutral or contradiction."""
    return inferred(rng, label, LANGUAGES[code].world)


def make_paraphrase_pair(rng: Random, same: int, code: str) -> tuple[str, str]:
    """Make two sentences on the same exchange (1), or on exchanges that differ in the giver or in the numbers (0).

    In both cases they differ in the subject (giver or receiver) or in the order of the goods.
    """
    spoken = LANGUAGES[code]
    deal = rng.choice(spoken.deals)
    people = rng.sample(spoken.people, 2)
    counts = rng.sample(spoken.numbers, 2)
    things = rng.sample(spoken.world.parts["thing"], 2)
    where = {"place": rng.choice(spoken.places), "time": rng.choice(spoken.times)}

    def say(way: tuple[str, int]) -> str:
        (n, x), (m, y) = [*zip(counts, things, strict=True)][:: way[1]]
        return way[0].format(a=people[0], b=people[1], goods=spoken.goods.format(n=n, x=x, m=m, y=y), **where)

    ways = rng.sample([*product(deal, (1, -1))], 2)
    first = say(ways[0])
    if not same:
        rng.choice((people, counts)).reverse()
    return first, say(ways[1])
