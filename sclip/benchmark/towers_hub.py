"""Create folders that stand in for a hub: text towers of the published sizes, and tokenizers of the original kinds.

Nothing is downloaded. Tokenizers have the original algorithms and special tokens, but words from a few captions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

CAPTIONS = [
    "a brown dog lies on a sofa", "an astronaut rides a horse on the moon", "a red square left of a blue circle",
    "a quiet evening", "a cup of tea on a wooden table", "a bird above a tree",
]  # fmt: skip

WORDS = 512
"""Number of word embeddings in towers that `make` writes with `cut`. No tokenizer here has more words."""

_BERT = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_XLM = {"max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_XLM |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}

TOWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta-base": ("RobertaConfig", _BERT | _XLM | {"vocab_size": 50265}),
    "xlm-roberta-base": ("XLMRobertaConfig", _BERT | _XLM | {"vocab_size": 250002}),
    "xlm-roberta-large": (
        "XLMRobertaConfig",
        _XLM | {"vocab_size": 250002, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                "intermediate_size": 4096},
    ),
    "google/mt5-base": (
        "MT5Config", {"vocab_size": 250112, "d_model": 768, "d_ff": 2048, "num_layers": 12, "num_heads": 12}
    ),
    "google/mt5-xl": (
        "MT5Config", {"vocab_size": 250112, "d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32}
    ),
    "facebook/nllb-200-distilled-600M": (
        "M2M100Config", {"vocab_size": 256206, "encoder_layers": 12, "decoder_layers": 12}
    ),
    "facebook/nllb-200-distilled-1.3B": (
        "M2M100Config",
        {"vocab_size": 256206, "encoder_layers": 24, "decoder_layers": 24, "encoder_ffn_dim": 8192,
         "decoder_ffn_dim": 8192},
    ),
}  # fmt: skip
"""Config class and sizes of each text tower, from its config.json on the hub."""

_DEPTHS = ("num_hidden_layers", "num_layers", "encoder_layers", "decoder_layers")


def make(folder: Path, name: str, cut: bool = False) -> None:
    """Write config and tokenizer of hub model `name`; with `cut`, keep one layer and `WORDS` words at full width."""
    path = folder / name
    path.mkdir(parents=True, exist_ok=True)
    if name in TOWERS:
        import transformers

        kind, sizes = TOWERS[name]
        if cut:
            sizes = sizes | {size: 1 for size in _DEPTHS if size in sizes} | {"vocab_size": WORDS}
        getattr(transformers, kind)(**sizes).save_pretrained(path)
    _tokenizer(name).save_pretrained(path)


def _tokenizer(name: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special, template, roles = _special(name)
    lower = "bert-base-uncased" in name
    unknown = roles["unk_token"]
    if lower:
        tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
        tokenizer.normalizer = normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(
            vocab_size=WORDS, special_tokens=special, show_progress=False
        )
    elif name == "roberta-base":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=WORDS, special_tokens=special, initial_alphabet=letters, show_progress=False
        )
    else:
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=128, special_tokens=special, unk_token=unknown, show_progress=False
        )
    tokenizer.train_from_iterator(CAPTIONS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, tokenizer.token_to_id(token)) for token in special]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **roles)


def _special(name: str) -> tuple[list[str], str, dict[str, str]]:
    """Return the special tokens by id, the template around a text ("<s> $A </s>"), and tokens by role ("pad_token")."""
    if "bert-base-uncased" in name:
        tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        roles = dict(zip(("pad", "unk", "cls", "sep", "mask"), tokens, strict=True))
    elif "SigLIP2" in name:
        tokens = ["<pad>", "<eos>", "<bos>", "<unk>"]
        roles = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>"}
    elif "SigLIP" in name or "mt5" in name:
        tokens = ["<pad>", "</s>", "<unk>"]
        roles = {"pad": "</s>" if "SigLIP" in name else "<pad>", "eos": "</s>", "unk": "<unk>"}
    else:
        tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *(["eng_Latn"] if "nllb" in name else [])]
        roles = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "cls": "<s>", "sep": "</s>"}
    ends = f"$A {roles.get('sep', roles.get('eos'))}"
    starts = "eng_Latn" if "nllb" in name else roles.get("cls", "")
    return tokens, f"{starts} {ends}".strip(), {f"{role}_token": token for role, token in roles.items()}
