"""Stage g2t: does it learn more than copying? On 5,000 sentences of a made-up gloss grammar, 500 of them unseen.

Glosses come in the order of signing (time, place, subject, object, quality, verb, negation or question) and bare; texts
are Spanish: articles, agreement of gender and number, three tenses, prepositions, another order. No sentence is in two
splits. Beside the BLEU-4 of the stage, with the small decoder, stand those of the glosses copied as a text, and of the
text of the training sentence that shares most glosses.

python benchmarks/g2t.py FOLDER [--epochs 12]     # some CPU minutes
"""

from __future__ import annotations

import argparse
import random
import resource
from collections import Counter
from pathlib import Path

from signstreams.formats.layout import CorpusLayout
from signstreams.integrate.run import run
from signstreams.integrate.scoring import score
from signstreams.integrate.settings import EvaluateSltConfig, IntegrateConfig
from signstreams.integrate.text_scores import translation_scores

SEED = 0
SIZES = {"train": 4000, "val": 500, "test": 500}
TIMES = {"AYER": "past", "HOY": "present", "MAÑANA": "future"}
PRONOUNS = {"YO": 0, "TÚ": 1, "ÉL": 2, "NOSOTROS": 3}
PEOPLE = "niño niña maestro maestra doctor doctora perro gato vecino vecina abuelo abuela hermano hermana amigo amiga"
THINGS = "libro mesa carta pan manzana coche casa silla camisa zapato flor árbol ventana puerta regalo sopa taza foto"
PLACES = "escuela parque cocina jardín calle mercado playa oficina"
QUALITIES = "rojo blanco negro pequeño nuevo viejo bonito caro"
VERBS = "mirar comprar buscar llevar pintar limpiar vender comer romper coger abrir recibir"
FEMININE = {"flor", "calle", "foto"}
ENDINGS = {
    "present": {"a": "o as a amos an", "e": "o es e emos en", "i": "o es e imos en"},
    "past": {"a": "é aste ó amos aron", "e": "í iste ió imos ieron", "i": "í iste ió imos ieron"},
}
FUTURE = "é ás á emos án"


def is_feminine(noun: str) -> bool:
    return noun.endswith("a") or noun in FEMININE


def plural(word: str) -> str:
    plain = word.replace("á", "a") if word.endswith("n") else word
    return plain + ("s" if plain[-1] in "aeiou" else "es")


def with_article(noun: str, *, is_many: bool) -> str:
    article = {(0, 0): "el", (1, 0): "la", (0, 1): "los", (1, 1): "las"}[int(is_feminine(noun)), int(is_many)]
    return f"{article} {plural(noun) if is_many else noun}"


def conjugated(verb: str, tense: str, person: int) -> str:
    if tense == "future":
        return verb + FUTURE.split()[person]
    stem, ending = verb[:-2], ENDINGS[tense][verb[-2]].split()[person]
    if verb == "coger" and ending[0] in "oa":
        stem = "coj"
    if verb == "buscar" and ending == "é":
        stem = "busqu"
    return stem + ending


def sentence(rng: random.Random) -> tuple[str, str]:
    """Glosses and text of one sentence."""
    glosses, before, after = [], "", ""
    time = rng.choice(list(TIMES))
    glosses.append(time)
    before = f"{time.lower()} "
    if rng.random() < 0.4:
        place = rng.choice(PLACES.split())
        glosses.append(place.upper())
        after = f" en {with_article(place, is_many=False)}"
    if rng.random() < 0.3:
        pronoun = rng.choice(list(PRONOUNS))
        glosses.append(pronoun)
        subject, person = f"{pronoun.lower()} ", PRONOUNS[pronoun]
    else:
        noun, is_many = rng.choice(PEOPLE.split()), rng.random() < 0.3
        glosses += [noun.upper(), *(["MUCHO"] if is_many else [])]
        subject, person = f"{with_article(noun, is_many=is_many)} ", 4 if is_many else 2
    thing, is_many = rng.choice(THINGS.split()), rng.random() < 0.3
    glosses += [thing.upper(), *(["MUCHO"] if is_many else [])]
    thing_words = with_article(thing, is_many=is_many)
    if rng.random() < 0.5:
        quality = rng.choice(QUALITIES.split())
        glosses.append(quality.upper())
        agreed = quality[:-1] + "a" if is_feminine(thing) else quality
        thing_words += f" {plural(agreed) if is_many else agreed}"
    verb = rng.choice(VERBS.split())
    glosses.append(verb.upper())
    end = rng.choice(["", "", "NO", "PREGUNTA"])
    glosses += [end] if end else []
    said = f"{conjugated(verb, TIMES[time], person)} {thing_words}{after}"
    if end == "PREGUNTA":
        return " ".join(glosses), f"¿{before.capitalize()}{said} {subject.strip()}?"
    return " ".join(glosses), f"{before.capitalize()}{subject}{'no ' if end == 'NO' else ''}{said}."


def write_corpus(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Split to glosses and text of its sentences, as the tables of a corpus without videos."""
    rng = random.Random(SEED)
    found: dict[str, str] = {}
    while len(found) < sum(SIZES.values()):
        glosses, text = sentence(rng)
        found.setdefault(glosses, text)
    rows, layout = iter(found.items()), CorpusLayout(root)
    splits = {split: [next(rows) for _ in range(size)] for split, size in SIZES.items()}
    for path in (layout.gloss, layout.index("train")):
        path.parent.mkdir(parents=True, exist_ok=True)
    named = [(f"{split}{n}", *row) for split, chosen in splits.items() for n, row in enumerate(chosen)]
    layout.meta.write_text("id;text\n" + "".join(f"{name};{text}\n" for name, _, text in named), encoding="utf-8")
    layout.gloss.write_text("id;gloss\n" + "".join(f"{name};{gloss}\n" for name, gloss, _ in named), encoding="utf-8")
    for split in splits:
        ids = [name for name, *_ in named if name.startswith(split)]
        layout.index(split).write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
    return splits


def nearest(glosses: str, train: list[tuple[Counter[str], str]]) -> str:
    """Text of the training sentence that shares most glosses, for its length."""
    own = Counter(glosses.split())
    return max(train, key=lambda row: (own & row[0]).total() / (own.total() + row[0].total()))[1]


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("folder", type=Path, help="corpus and run")
    words.add_argument("--epochs", type=int, default=12)
    args = words.parse_args()
    splits = write_corpus(args.folder / "corpus")
    config = IntegrateConfig.model_validate(
        {
            "stage": "g2t",
            "root": args.folder / "corpus",
            "output_dir": args.folder / "g2t",
            "data": {"batch_size": 32},
            "model": {"d_model": 128, "num_layers": 2, "ff_dim": 256},
            "decoder": {"num_layers": 2, "ff_dim": 256, "vocab_size": 600, "max_tokens": 40},
            "optim": {"lr": 1e-3},
            "train": {"epochs": args.epochs, "eval_every_epochs": max(1, args.epochs // 3)},
            "device": "cpu",
        }
    )
    run(config)
    learned = score(EvaluateSltConfig(checkpoint=config.output_dir / "best.pt", splits=["test"], device="cpu"))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    references = [text for _, text in splits["test"]]
    train = [(Counter(glosses.split()), text) for glosses, text in splits["train"]]
    others = {
        "glosses copied": [f"{glosses.capitalize()}." for glosses, _ in splits["test"]],
        "nearest training sentence": [nearest(glosses, train) for glosses, _ in splits["test"]],
    }
    print("| of 500 unseen sentences | BLEU-4 | chrF |\n| --- | --: | --: |")
    print(f"| stage g2t | {learned['bleu_4']:.1f} | {learned['chrf']:.1f} |")
    for name, texts in others.items():
        scores = translation_scores(texts, references)
        print(f"| {name} | {scores['bleu_4']:.1f} | {scores['chrf']:.1f} |")
    print(f"\n{(usage.ru_utime + usage.ru_stime) / 60:.1f} CPU minutes")


if __name__ == "__main__":
    main()
