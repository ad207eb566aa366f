"""The choice of a precision: `--amp auto`."""

import argparse
from pathlib import Path

import pytest
import torch

from engine.run import acceleration
from engine.run.acceleration import choose_precision, time_precisions
from utils.errors import InputError
from utils.log import RunLog

CPU = torch.device("cpu")


def give(monkeypatch, full, half):
    monkeypatch.setattr(acceleration, "time_precisions", lambda device: (full, half))


def forbid(monkeypatch):
    def fail(device):
        raise AssertionError("timed")

    monkeypatch.setattr(acceleration, "time_precisions", fail)


def checkpoint_of(**options):
    return Path("a.pth"), {"opt": argparse.Namespace(**options)}


@pytest.mark.parametrize(
    ("full", "half", "chosen"),
    [(1.2, 1.0, "bf16"), (9.0, 1.0, "bf16"), (1.19, 1.0, "off"), (1.0, float("inf"), "off")],
)
def test_bf16_is_taken_where_it_is_a_fifth_faster(monkeypatch, full, half, chosen):
    give(monkeypatch, full / 1000, half / 1000)
    log = RunLog()
    assert choose_precision("auto", CPU, None, log) == chosen
    assert log.kept == [
        f"--amp auto: {chosen}; some convolutions took {full:.1f} ms in float32, {half:.1f} ms "
        "in bf16"
    ]


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_what_was_named_is_never_timed(monkeypatch, amp):
    forbid(monkeypatch)
    log = RunLog()
    assert choose_precision(amp, CPU, checkpoint_of(amp="off"), log) == amp
    assert choose_precision(amp, CPU, None, log) == amp and log.kept == []


@pytest.mark.parametrize("amp", ["off", "bf16", "fp16", None])
def test_a_resumed_run_keeps_its_precision(monkeypatch, amp):
    forbid(monkeypatch)
    found = checkpoint_of() if amp is None else checkpoint_of(amp=amp)
    assert choose_precision("auto", CPU, found, RunLog()) == (amp or "off")  # as published


def test_a_checkpoint_of_no_known_precision_is_refused(monkeypatch):
    forbid(monkeypatch)
    for amp in ("auto", "fp8", 3, None, RunLog()):
        with pytest.raises(InputError, match="a.pth: its --amp is"):
            choose_precision("auto", CPU, checkpoint_of(amp=amp), RunLog())


def test_the_first_rank_decides_for_all(monkeypatch):
    forbid(monkeypatch)  # this rank's own timing
    monkeypatch.setattr(acceleration, "broadcast_from_first", lambda make: (0.002, 0.001))
    assert choose_precision("auto", CPU, None, RunLog()) == "bf16"
    monkeypatch.setattr(acceleration, "broadcast_from_first", lambda make: (0.001, 0.002))
    assert choose_precision("auto", CPU, None, RunLog()) == "off"


def test_timing_touches_no_random_numbers_and_leaves_no_gradients():
    before = torch.get_rng_state()
    full, half = time_precisions(CPU)
    assert 0 < full < 60 and half > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_precision_without_kernels_takes_for_ever(monkeypatch):
    autocast = acceleration.autocast

    def refuse(device, amp):
        if amp == "bf16":
            raise RuntimeError("not implemented for BFloat16")
        return autocast(device, amp)

    monkeypatch.setattr(acceleration, "autocast", refuse)
    full, half = time_precisions(CPU)
    assert full < half == float("inf")
