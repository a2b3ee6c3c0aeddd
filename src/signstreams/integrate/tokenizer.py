"""Text to tokens and back: byte-level BPE trained on the corpus's own texts, or the tokenizer of a named model.

Byte-level: accents, case and letters that never occur in training survive; texts are composed (NFC). Both kinds are a
file of the tokenizers library and the ids of a few special tokens.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as HfTokenizer

from signstreams.corpus.table import CONTROL_CHARACTERS
from signstreams.errors import UserError
from signstreams.files import write_text

MAX_ID = 1 << 24  # of a token; the largest vocabularies have some hundred thousand
PAD, EOS, UNKNOWN = 0, 1, 2  # T5's order; padding also starts the decoder
SPECIAL_TOKENS = ["<pad>", "</s>", "<unk>"]


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens."""

    pad: int = PAD  # padding
    eos: int = EOS  # end of a text
    start: int = PAD  # input of the decoder before the first token
    first: int | None = None  # token at the start of every text (the language, for mBART-50); None without
    never: tuple[int, ...] = (PAD, UNKNOWN)  # tokens that are never generated
    source_prefix: tuple[int, ...] = ()  # tokens before a sentence that an encoder reads
    source_suffix: tuple[int, ...] = (EOS,)  # tokens after it

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as stored in checkpoints."""
        plain: dict[str, Any] = asdict(self)
        plain |= {name: list(plain[name]) for name in ("never", "source_prefix", "source_suffix")}
        return plain

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> SpecialTokens:
        """Reverse of `as_dict`.

        Raises:
            KeyError, TypeError, ValueError: It lacks an entry, has another one, or one is no id.
        """
        fields: dict[str, Any] = {**content, "never": tuple(content["never"])}
        for name in ("source_prefix", "source_suffix"):
            if name in content:  # models of before have none
                fields[name] = tuple(content[name])
        special = cls(**fields)
        if odd := [number for number in special.ids if type(number) is not int or number < 0]:
            raise ValueError(f"{odd[0]!r:.40} is not the id of a token")
        return special

    @property
    def ids(self) -> list[int]:
        """All of them."""
        first = [] if self.first is None else [self.first]
        return [self.pad, self.eos, self.start, *self.never, *first, *self.source_prefix, *self.source_suffix]

    def renumbered(self, numbers: Mapping[int, int]) -> SpecialTokens:
        """The same tokens under other ids: ``numbers`` has the new one of each."""

        def new(value: Any) -> Any:
            return tuple(map(new, value)) if isinstance(value, tuple) else None if value is None else numbers[value]

        return SpecialTokens(**{name: new(value) for name, value in asdict(self).items()})


class Tokenizer:
    """Texts to token ids and back."""

    def __init__(self, tokenizer: HfTokenizer, special: SpecialTokens | None = None) -> None:
        self._tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # a text may hold "</s>" or "<pad>": its letters, not the token
        self.special = special or SpecialTokens()
        self.rows: list[int] | None = None
        """Of a pruned tokenizer (`signstreams.integrate.vocabulary`): the id that each token had before."""

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn at most ``vocab_size`` tokens from ``texts``; the same texts give the same tokens."""
        tokenizer = HfTokenizer(models.BPE())
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            special_tokens=SPECIAL_TOKENS,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def load(cls, path: str | Path, special: SpecialTokens | None = None) -> Tokenizer:
        """Read what `save` wrote.

        Raises:
            UserError: The file is missing or no tokenizer.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
            tokenizer = cls(_from_json(text), special)
            ids = tokenizer.ids.values()
            if len(set(ids)) < len(ids) or max(ids, default=0) > MAX_ID or not tokenizer.encode("a b")[:-1]:
                raise ValueError("tokens without an id of their own, or none")
        except OSError as error:
            raise UserError(
                f"{path}: {error.strerror}, expected the model's tokenizer; train the model again"
            ) from None
        except Exception as error:  # the tokenizers library raises plain Exception for a file it cannot read
            reason = " ".join(str(error).split())[:160]
            raise UserError(f"{path}: is not a tokenizer ({reason}); copy it again, or train the model again") from None
        return tokenizer

    def save(self, path: str | Path) -> None:
        """Write a JSON file of the tokenizers library."""
        write_text(path, self._tokenizer.to_str(pretty=True))

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def ids(self) -> dict[str, int]:
        """Token to its id."""
        return self._tokenizer.get_vocab()

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` with the end token."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [*([] if self.special.first is None else [self.special.first]), *ids, self.special.eos]

    def lost(self, text: str) -> str:
        """Letters and signs of ``text`` that do not come back from its tokens: unknown pieces, accents cut off.

        Texts are compared in compatibility form (NFKC), in which many tokenizers write the ellipsis as three dots.
        """
        back = Counter(unicodedata.normalize("NFKC", self.decode(self.encode(text))))
        missing = Counter(unicodedata.normalize("NFKC", text)) - back
        return "".join(letter for letter in missing if not letter.isspace())

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` up to the first end token; special tokens are left out.

        So are control characters, which a model of bytes can spell though it never read one: no table takes them.
        """
        ids = list(ids)
        if self.special.eos in ids:
            ids = ids[: ids.index(self.special.eos)]
        kept = [i for i in ids if i < len(self)]  # a model may have more rows than its tokenizer has tokens
        text = self._tokenizer.decode(kept, skip_special_tokens=True).strip()
        return CONTROL_CHARACTERS.sub("", text)


def spell_out_special_tokens(tokenizer: HfTokenizer) -> None:
    """Let a text's own "</s>" or "de_DE" be spelled by its letters, in a tokenizer of any kind.

    ``encode_special_tokens`` is not enough where special tokens are pieces of the vocabulary too, as in every converted
    SentencePiece model: there they have the best score of all. Their spellings are cut after the first letter, once the
    text is normalised, so that no piece can be one of them.
    """
    special = sorted(token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special)
    pattern = "|".join(f"{re.escape(text[0])}(?={re.escape(text[1:])})" for text in special if len(text) > 1)
    if pattern:
        cut = pre_tokenizers.Split(Regex(pattern), "isolated")
        own = tokenizer.pre_tokenizer
        tokenizer.pre_tokenizer = cut if own is None else pre_tokenizers.Sequence([own, cut])


def _from_json(text: str) -> HfTokenizer:
    """A tokenizer from its JSON.

    Raises:
        Exception: Of any kind; the text is not a tokenizer.
    """
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ValueError("it has no model")
    for place, key in ((content, "padding"), (content, "truncation"), (content["model"], "dropout")):
        if place.get(key):  # `save` writes none; a length of any size would end the process
            raise ValueError(f"it has {key}")
    try:
        with _without_messages_of_rust():
            tokenizer = HfTokenizer.from_str(text)
            tokenizer.decode(tokenizer.encode("El niño come ¿pan? 日本", add_special_tokens=False).ids)
            return tokenizer
    except BaseException as error:  # a panic of Rust is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise ValueError(str(error)) from None


@contextlib.contextmanager
def _without_messages_of_rust() -> Iterator[None]:
    """Rust prints a panic before Python can say what is wrong."""
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # closed
        yield
        return
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
