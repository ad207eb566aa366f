"""Which images may be suggested for annotation."""

import engine.prediction.pictures as pictures
from data_loader.unannotated import ImageFiles, Shown
from engine.prediction.part_file import Found


def entry(index, confidence, reason="") -> Found:
    return Found(index, f"{index}.png", "", None, (8, 8), [[0, 0]], [confidence], reason)


def test_the_less_certain_half_without_bad_and_known_images(tmp_path):
    source = ImageFiles(tmp_path, [Shown(f"{number}.png") for number in range(9)])
    entries = [entry(number, abs(number - 4) / 10) for number in range(8)]
    entries.append(entry(8, 0.0, "no image"))
    known = {source.path(5).resolve()}
    half = pictures.less_certain_half(iter(entries), source, known, least=2)
    assert half == [4, 3, 2]  # of seven: 4 is the least certain, 5 is annotated
    assert len(pictures.less_certain_half(iter(entries), source, known, least=6)) == 6
    assert pictures.less_certain_half(iter(entries[8:]), source, known, least=6) == []


def test_of_many_images_some_of_every_confidence(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MOST_CANDIDATES", 10)
    source = ImageFiles(tmp_path, [Shown(f"{number}.png") for number in range(100)])
    entries = [entry(number, number / 100) for number in range(100)]
    assert pictures.less_certain_half(iter(entries), source, set(), 3) == list(range(0, 50, 5))
    assert len(pictures.less_certain_half(iter(entries), source, set(), 20)) == 25
