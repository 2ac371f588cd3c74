"""The scorer: images and captions to features and cosines, saved and loaded again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import sclip
from sclip.config import KEEConfig, ModelConfig
from sclip.inference.scorer import Scorer, to_uint8
from sclip.model import build_model
from support.pictures import picture, speckled
from support.small_model import CAPTIONS, small_scorer


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return small_scorer()


def test_scores_are_the_cosines_of_the_features(scorer: Scorer) -> None:
    images = [picture("red"), picture("blue"), speckled(1)]
    captions = ["a red square left of a blue circle", "", "a dog"]
    image_features, text_features = scorer.encode_image(images), scorer.encode_text(captions)
    torch.testing.assert_close(image_features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(text_features.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(scorer.score(images, captions), (image_features * text_features).sum(dim=1))


def test_captions_pass_the_parser_and_the_knowledge_encoder(scorer: Scorer) -> None:
    caption = "a red square is left of a blue circle"
    (graph,) = scorer.scene_graph([caption])
    assert {("red", "is", "square"), ("blue", "is", "circle")} <= set(graph.triples())
    without = Scorer(build_model(ModelConfig(name="scenes-conv", kee=KEEConfig(enabled=False))))
    without._model.clip.load_state_dict(scorer._model.clip.state_dict())
    assert not torch.allclose(scorer.encode_text([caption]), without.encode_text([caption]), atol=1e-3)
    torch.testing.assert_close(scorer.encode_text([""]), without.encode_text([""]))  # CLIP's own feature


def test_the_batch_size_changes_no_feature(scorer: Scorer) -> None:
    images = [speckled(seed) for seed in range(5)]
    captions = [f"a {colour} ball on a table" for colour in ("red", "green", "blue", "yellow")]
    torch.testing.assert_close(scorer.encode_image(images, 2), scorer.encode_image(images))
    torch.testing.assert_close(scorer.encode_text(captions, 3), scorer.encode_text(captions))
    assert len(scorer.encode_image([])) == len(scorer.encode_text([])) == len(scorer.score([], [])) == 0


def test_captions_without_their_padding_have_the_same_features(scorer: Scorer) -> None:
    captions = ["a cat", *CAPTIONS, "a man in a red hat walks a dog " * 9, ""]
    with torch.no_grad():
        features = scorer.model.encode_text(*scorer.tokens(captions))
    torch.testing.assert_close(scorer.encode_text(captions, 2), features, rtol=0, atol=1e-6)


@pytest.mark.parametrize("broken", [b"", picture()[:60], None, "path.jpg"])
def test_a_broken_image_is_named_by_its_row(scorer: Scorer, broken: Any) -> None:
    with pytest.raises(ValueError, match="image in row 3: "):
        scorer.encode_image([picture(), picture(), picture(), broken], batch_size=2)


def test_an_argument_that_is_no_list_of_captions_is_refused(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="captions: must be a list of texts"):
        scorer.encode_text("a dog")
    with pytest.raises(ValueError, match="caption in row 1: must be text, not NoneType"):
        scorer.encode_text(["a dog", None])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="batch_size=0: must be 1 or more"):
        scorer.encode_text(["a dog"], 0)
    with pytest.raises(ValueError, match="1 images and 2 captions"):
        scorer.score([picture()], ["a", "b"])


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_bytes_and_pil_images_give_the_same_pixels(mode: str) -> None:
    image = Image.effect_noise((90, 70), 80).convert("RGB").convert(mode)
    file = io.BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG")
    pixels = to_uint8(file.getvalue(), 64)
    assert pixels.shape == (3, 64, 64)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, to_uint8(image, 64))


def test_a_model_of_another_parser_is_loaded_with_a_warning(
    scorer: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    scorer.save(tmp_path / "model")
    (tmp_path / "model" / "parser.json").write_text('{"spacy_model": "", "version": "rules-0"}')
    loaded = sclip.load("~/model")
    assert "parser rules-0" in caplog.text
    torch.testing.assert_close(loaded.encode_image([speckled(2)]), scorer.encode_image([speckled(2)]))
