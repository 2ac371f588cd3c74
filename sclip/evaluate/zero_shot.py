"""Score zero-shot classification: top-1 accuracy, top-5 accuracy and the mean accuracy over classes.

Files are FOLDER/CLASS/*.jpg, as in ImageNet's validation set. The method is open_clip's `build_zero_shot_classifier`
(Radford et al., "Learning transferable visual models from natural language supervision", ICML 2021, 3.1.4). The name of
a class fills every template. The mean of these texts' features stands for the class, and a picture gets the most
similar class.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from sclip.data.names import IMAGE_SUFFIXES
from sclip.evaluate import examples
from sclip.evaluate.benchmarks import About, BenchmarkDataError, left, read_json
from sclip.evaluate.features import Features
from sclip.evaluate.interval import groups, scored
from sclip.evaluate.picture import Picture
from sclip.evaluate.result import Example, Result, Score

__all__ = ["TEMPLATES", "Labelled", "ZeroShot", "read"]

TEMPLATES = {"openai": open_clip.OPENAI_IMAGENET_TEMPLATES, "simple": open_clip.SIMPLE_IMAGENET_TEMPLATES}
_SUFFIXES = {f".{suffix}" for suffix in IMAGE_SUFFIXES}
_AT_A_TIME = 1024


def read(about: About, images: Path, class_names: Path | None = None, templates: str = "openai") -> ZeroShot:
    """Return the task of a folder that contains a folder of pictures for each class.

    `class_names` is a JSON file: an object from class folder to class name, or a list in the order of the sorted
    folders. None means open_clip's names if the folders are ImageNet's, else the folder names with spaces for "_".
    Raises BenchmarkDataError for unknown templates, missing folders, pictures or class names.
    """
    if templates not in TEMPLATES:
        raise BenchmarkDataError(f"{about.name}: templates={templates!r}: must be {' or '.join(TEMPLATES)}")
    try:
        folders = sorted(path for path in images.iterdir() if path.is_dir() and not path.name.startswith("."))
        labelled = [
            Labelled(f"{folder.name}/{file.name}", Picture(str(file)), label)
            for label, folder in enumerate(folders)
            for file in sorted(folder.iterdir()) if file.suffix.lower() in _SUFFIXES
        ]  # fmt: skip
    except OSError as error:
        raise BenchmarkDataError(f"{images}: cannot be read: {error}") from error
    if len(folders) < 2 or not labelled:
        raise BenchmarkDataError(
            f"{images}: must hold two or more folders, one for each class, with pictures"
        )
    names = _names([folder.name for folder in folders], class_names)
    return ZeroShot(about, labelled, tuple(names), templates)


def _names(folders: Sequence[str], file: Path | None) -> list[str]:
    if file is None:
        imagenet = len(folders) == len(open_clip.IMAGENET_CLASSNAMES)
        if imagenet and all(name[:1] == "n" and name[1:].isdigit() for name in folders):
            return list(open_clip.IMAGENET_CLASSNAMES)
        return [name.replace("_", " ") for name in folders]
    names = read_json(file)
    if isinstance(names, dict):
        unnamed = [folder for folder in folders if folder not in names]
        if unnamed:
            raise BenchmarkDataError(f"{file}: no name for {len(unnamed)} folders, the first is {unnamed[0]}")
        names = [names[folder] for folder in folders]
    if not isinstance(names, list) or len(names) != len(folders):
        raise BenchmarkDataError(
            f"{file}: must name {len(folders)} classes: a list, or an object with folders as keys"
        )
    if not all(isinstance(name, str) and name for name in names):
        raise BenchmarkDataError(f"{file}: each class name must be text")
    return names


@dataclass(frozen=True, slots=True)
class Labelled:
    """A picture and its class."""

    name: str
    picture: Picture
    label: int


@dataclass(frozen=True)
class ZeroShot:
    """Task of naming the class of a picture. A tie is lost.

    Two classes can share a name ("missile" in open_clip's names for ImageNet). The model then never chooses the second.
    """

    about: About
    images: Sequence[Labelled]
    classes: tuple[str, ...]
    templates: str = "openai"
    skips_unreadable: bool = False

    def sizes(self) -> dict[str, int]:
        """Return the numbers of images and classes."""
        return {"images": len(self.images), "classes": len(self.classes)}

    def pictures(self) -> list[Picture]:
        """Return the pictures."""
        return [image.picture for image in self.images]

    def captions(self) -> list[str]:
        """Return each class name in each template, ordered by class."""
        return [template(name) for name in self.classes for template in TEMPLATES[self.templates]]

    def without(self, pictures: Collection[Picture]) -> ZeroShot:
        """Return the task without these pictures. Raises BenchmarkDataError if no picture is left."""
        kept = [image for image in self.images if image.picture not in pictures]  # all classes stay
        return replace(self, about=left(self.about, self.images, kept, "images"), images=kept)

    def class_features(self, features: Features) -> Tensor:
        """Return the unit-length feature of each class, [classes, D]."""
        template_features = features.of_captions(self.captions())
        return F.normalize(
            template_features.reshape(len(self.classes), -1, template_features.shape[1]).mean(dim=1), dim=-1
        )

    def result(self, features: Features) -> Result:
        """Return `top1`, `mean_per_class` and, with more than five classes, `top5`."""
        classes = self.class_features(features)
        before = self._before(features, classes)
        top1 = (before < 1).tolist()
        names = [image.name for image in self.images]
        scores = {"top1": self._score(top1, 1, "top1")}
        if len(self.classes) > 5:
            scores["top5"] = self._score((before < 5).tolist(), 5, "top5")
        labels = [self.classes[image.label] for image in self.images]
        folders = [str(image.label) for image in self.images]
        scores["mean_per_class"] = self._score(top1, 1, "mean_per_class", folders)
        return Result(
            self.about.name, self.about.kind, self.about.definition,
            headline="top1",
            scores=scores,
            counts={
                "cases": len(names), "images": len(names), "classes": len(self.classes),
                "captions": len(set(self.captions())), "ties": self._ties(features, classes),
            },
            won=dict(zip(names, top1, strict=True)),
            groups=groups(self.about.name, zip(labels, names, top1, strict=True)),
            notes=list(self.about.notes),
            examples=self._examples(features, classes, top1),
        )  # fmt: skip

    def _before(self, features: Features, classes: Tensor) -> Tensor:
        """Return the rank of each picture's right class, from 0. Ties and NaN count against the model."""
        return torch.cat([
            (~(cosines < right)).sum(dim=1) - 1 for cosines, right in self._cosines(features, classes)
        ])  # fmt: skip

    def _ties(self, features: Features, classes: Tensor) -> int:
        return sum(
            int(((cosines == right).sum(dim=1) > 1).sum())
            for cosines, right in self._cosines(features, classes)
        )

    def _cosines(self, features: Features, classes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, for n pictures at a time, the cosines with every class, [n, classes], and the right class, [n, 1]."""
        number = {name: index for index, name in enumerate(dict.fromkeys(self.classes))}
        named = torch.tensor([number[name] for name in self.classes])
        indices = torch.arange(len(named))
        for start in range(0, len(self.images), _AT_A_TIME):
            batch = self.images[start : start + _AT_A_TIME]
            cosines = features.of_pictures(image.picture for image in batch) @ classes.T
            labels = torch.tensor([[image.label] for image in batch])
            # Of classes with the same name, the first wins.
            twins = named == named[labels]
            cosines = cosines.masked_fill(twins & (indices < labels), torch.inf)
            cosines = cosines.masked_fill(twins & (indices > labels), -torch.inf)
            yield cosines, cosines.gather(1, labels)

    def _score(self, won: Sequence[bool], k: int, name: str, classes: Sequence[str] | None = None) -> Score:
        images = [image.picture.image for image in self.images]
        return scored(won, images, k / len(self.classes), classes, key=f"{self.about.name}/{name}")

    def _examples(self, features: Features, classes: Tensor, won: Sequence[bool]) -> list[Example]:
        lost = ((image.name, image) for image, w in zip(self.images, won, strict=True) if not w)
        drawn = examples.chosen(self.about.name, lost)
        pictures = examples.shown(image.picture for _, image in drawn)
        shown = []
        for name, image in drawn:
            row = (features.of_pictures([image.picture]) @ classes.T)[0].tolist()
            right, false = self.classes[image.label], list(zip(self.classes, row, strict=True))
            del false[image.label]
            shown.append(
                examples.example(name, right, pictures[image.picture], [(right, row[image.label])], false)
            )
        return shown
