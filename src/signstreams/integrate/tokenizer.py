"""Text to tokens and back: byte-level BPE trained on the corpus's own texts, or the tokenizer of a named model.

Of our own: every character has bytes, so accents, case and letters never seen in training all survive; texts are
composed (NFC). Both are a file of the tokenizers library, and a few ids that say what some tokens are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from signstreams.errors import UserError
from signstreams.files import write_text

PAD, EOS, UNKNOWN = 0, 1, 2  # T5's order; padding also starts the decoder
SPECIAL_TOKENS = ["<pad>", "</s>", "<unk>"]


@dataclass(frozen=True)
class Roles:
    """Tokens with a meaning of their own.

    Attributes:
        pad: Fills what is no text.
        eos: Ends a text.
        start: What the decoder sees before the first token.
        first: Token before every text (mBART-50's language); None without.
        never: Tokens that are never written.
    """

    pad: int = PAD
    eos: int = EOS
    start: int = PAD
    first: int | None = None
    never: tuple[int, ...] = (PAD, UNKNOWN)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "never": list(self.never)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Roles:
        """What `as_dict` gave."""
        return cls(**{**content, "never": tuple(content["never"])})


class TextTokenizer:
    """Tokens of the decoder."""

    def __init__(self, tokenizer: Tokenizer, roles: Roles | None = None) -> None:
        self._tokenizer = tokenizer
        self.roles = roles or Roles()

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> TextTokenizer:
        """Learn at most ``vocab_size`` tokens from ``texts``; the same texts give the same tokens."""
        tokenizer = Tokenizer(models.BPE())
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
    def load(cls, path: str | Path, roles: Roles | None = None) -> TextTokenizer:
        """Read what `save` wrote.

        Raises:
            UserError: When it is absent or something else.
        """
        try:
            return cls(Tokenizer.from_str(Path(path).read_text(encoding="utf-8")), roles)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}, expected the model's tokenizer; train the model anew") from None
        except Exception as error:  # the tokenizers library raises plain Exception for a file it cannot read
            raise UserError(f"{path}: is no tokenizer ({error}); train the model anew") from None

    def save(self, path: str | Path) -> None:
        """Write as JSON of the tokenizers library."""
        write_text(path, self._tokenizer.to_str(pretty=True))

    def __len__(self) -> int:
        return self._tokenizer.get_vocab_size()

    @property
    def ids(self) -> dict[str, int]:
        """Token to its id."""
        return self._tokenizer.get_vocab()

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text``, closed by the end token."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return [*([] if self.roles.first is None else [self.roles.first]), *ids, self.roles.eos]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ``ids`` up to the first end token; special tokens are left out."""
        ids = list(ids)
        if self.roles.eos in ids:
            ids = ids[: ids.index(self.roles.eos)]
        kept = [i for i in ids if i < len(self)]  # a model may have more rows than its tokenizer has tokens
        return self._tokenizer.decode(kept, skip_special_tokens=True).strip()
