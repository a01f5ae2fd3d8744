"""``mmaudio-train score``: a sound that fits scores well, others do not, and the numbers are what they are called."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError, WeightsError
from mmaudio_core.pipeline.files import EMBEDDED_FILE
from mmaudio_core.pipeline.sample import SampleSettings
from mmaudio_core.spec.audio import AUDIO_16K, AUDIO_44K
from mmaudio_core.types import Audio, Features
from trainer.cli import main
from trainer.score.classifier import Classifier, load_classifier
from trainer.score.learn import collect, train_classifier
from trainer.score.lines import LINES, SCORED_FROM, TRAINING_SEEDS, Sounds, Wishes
from trainer.score.measure import KEYS, Ear
from trainer.score.run import score
from trainer.score.strikes import at_peak, strikes_of
from trainer.world import HELD_OUT_SEED, MATERIALS, WorldClip, make_clip

from .test_score_parts import noise


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return train_classifier(seed=1, clips=70, steps=60, checked=12)


@pytest.fixture(scope="module")
def saved(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("classifier") / "c.safetensors"
    classifier.save(path)
    return path


def test_the_classifier_learns_and_is_the_same_from_the_same_seed(classifier: Classifier) -> None:
    assert classifier.training.accuracy > 0.8
    assert classifier.training.strikes > 30
    patches, materials = collect(range(SCORED_FROM, SCORED_FROM + 12))
    logits, features = classifier.judge(patches)
    assert logits.shape == (len(materials), len(MATERIALS))
    assert features.shape == (len(materials), 64)
    assert float((logits.argmax(1) == materials).double().mean()) > 0.8
    few = [train_classifier(seed=seed, clips=3, steps=2, checked=3).net.state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(few[0][name], few[1][name]) for name in few[0])
    assert not torch.equal(few[0]["classes.weight"], few[2]["classes.weight"])
    with pytest.raises(InputError, match="0 clips"):
        train_classifier(clips=0)


def test_a_saved_classifier_is_the_same(classifier: Classifier, saved: Path, tmp_path: Path) -> None:
    again = load_classifier(saved)
    assert again.training == classifier.training
    patches = noise(80 * 35 * 2, 1.0).reshape(2, 80, 35) - 2
    for got, wanted in zip(again.judge(patches), classifier.judge(patches), strict=True):
        assert torch.equal(got, wanted)
    with pytest.raises(WeightsError, match="no material classifier"):
        load_classifier(EMBEDDED_FILE)
    other = tmp_path / "other.safetensors"
    other.write_bytes(saved.read_bytes().replace(b"rubber", b"cheese"))
    with pytest.raises(WeightsError, match="another version"):
        load_classifier(other)


def test_the_ear_hears_the_world_at_both_rates(classifier: Classifier) -> None:
    clip = make_clip(0, AUDIO_44K.sample_rate_hz, scene="stick", pictures=False)
    times_s = [event.time_s for event in strikes_of(clip)]
    found = Ear(classifier).hear(0.01 * torch.from_numpy(clip.samples), clip)
    assert found.onsets.times_s == pytest.approx(times_s, abs=0.01)
    assert len(found.logits) == len(found.loudness_db) == len(times_s) > 2


class StandIn:
    """In the model's place: its pictures are the clip's first pixel, and what it makes is the true sound 40 ms late."""

    audio = AUDIO_16K

    def __init__(self, seconds: float = 8.0) -> None:
        self.seconds = seconds
        self.seeds: list[int] = []
        self.texts: list[str] = []
        self.timings: list[str | None] = []

    def read_frames(self, frames: Any, fps: float) -> Tensor:
        assert (frames.shape, fps) == ((round(25 * self.seconds), 224, 224, 3), 25)
        return torch.from_numpy(frames[0, 0, 0].astype("float32"))

    def encode_frames(self, frames: Tensor) -> Features:
        return Features(clip=frames[None, None], sync=frames[None, None], duration_s=self.seconds)

    def encode_text(self, prompts: list[str]) -> Tensor:
        self.texts += prompts
        return torch.arange(len(prompts))[:, None, None]

    def sample(
        self, features: Features, duration_s: float, seeds: list[int], negative: torch.Tensor | None, settings: SampleSettings
    ) -> Features:
        assert (duration_s, settings.steps, negative) == (self.seconds, 3, None)
        self.seeds += seeds
        self.timings.append(features.sync_timing)
        return features

    def decode(self, latents: Features) -> Features:
        return latents

    def vocode(self, features: Features) -> Audio:
        clips = [make_clip(seed) for seed in self.seeds[-len(features.clip) :]]
        for row, clip in zip(features.clip, clips, strict=True):
            assert row[0].tolist() == clip.frames[0, 0, 0].tolist()
        sounds = [torch.from_numpy(clip.samples).roll(640)[: round(16_000 * self.seconds)] for clip in clips]
        return Audio(torch.stack(sounds)[:, None], 16_000)


def test_each_line_scores_as_it_must(classifier: Classifier) -> None:
    model, seen = StandIn(), []
    tripper = SimpleNamespace(audio=AUDIO_16K, back=lambda samples: (None, samples + noise(len(samples), 1e-3)))
    wishes = Wishes(7, seed=0, settings=SampleSettings(steps=3, batch_size=3))
    values = score(model, tripper, classifier, wishes, lambda done, total: seen.append((done, total)))  # type: ignore[arg-type]
    assert seen == [(3, 7), (6, 7), (7, 7)]
    assert set(values) == {*LINES, "counts"}
    assert all(tuple(values[line]) == KEYS for line in LINES)
    assert all(math.isfinite(value) for line in LINES for value in values[line].values())
    assert model.seeds == list(wishes.seeds)
    assert model.texts == [make_clip(seed, pictures=False).captions[0] for seed in wishes.seeds]
    assert values["counts"]["clips"] == 7
    truth, late, trip = values["truth"], values["model"], values["round_trip"]
    assert truth["onset_f1_50ms"] > 0.95
    assert truth["material_accuracy"] > 0.8
    assert truth["loudness_correlation"] > 0.8
    assert trip["onset_f1_50ms"] > 0.9
    assert late["onset_f1_50ms"] > 0.9
    for line in ("silence", "shuffled"):
        for key in (
            "onset_f1_50ms",
            "onset_f1",
            "onset_ap",
            "heard_onset_f1_50ms",
            "material_accuracy",
            "loudness_correlation",
        ):
            assert values[line][key] < truth[key] - 0.2, (line, key)
        for key in ("frechet_distance", "kl"):
            assert values[line][key] > late[key] >= truth[key], (line, key)
    assert values["silence"]["onset_f1"] == values["silence"]["loudness_correlation"] == 0


def test_text_alone_needs_no_pictures_and_pictures_alone_no_text(classifier: Classifier) -> None:
    given: list[Features] = []

    class Listening(StandIn):
        def vocode(self, features: Features) -> Audio:
            given.append(features)
            return Audio(torch.zeros(1, 1, 128_000), 16_000)

    settings = SampleSettings(steps=3, batch_size=1)
    clip = make_clip(SCORED_FROM)
    for wishes in (Wishes(1, settings=settings, video=False), Wishes(1, settings=settings, prompts="none")):
        Sounds(Listening(), None, wishes).of("model", [clip])  # type: ignore[arg-type]
    text, video = given
    assert (text.clip, text.sync, text.duration_s) == (None, None, None)
    assert text.text is not None
    assert video.text is None
    assert video.clip is not None
    assert video.duration_s == 8.0


def test_the_first_seconds_alone_can_be_scored(classifier: Classifier) -> None:
    model = StandIn(seconds=4.0)
    tripper = SimpleNamespace(audio=AUDIO_16K, back=lambda samples: (None, samples))
    wishes = Wishes(7, duration_s=4.0, sync_timing="steady", settings=SampleSettings(steps=3, batch_size=3))
    values = score(model, tripper, classifier, wishes)  # type: ignore[arg-type]
    assert model.timings == ["steady"] * 3
    every = [event for seed in wishes.seeds for event in strikes_of(make_clip(seed, pictures=False))]
    assert values["counts"]["strikes"] == sum(event.time_s < 4.0 for event in every) < len(every)
    assert values["model"]["onset_f1_50ms"] > 0.9
    assert values["truth"]["onset_f1_50ms"] > 0.9


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"duration_s": 9.0}, "9 s of each clip were asked for; the world's clips have 8 s"),
        ({"duration_s": 0.2}, r"at least 0\.64 s"),
        ({"sync_timing": "slow"}, "use stretched or steady"),
    ],
)
def test_impossible_wishes(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Wishes(3, **wrong)


def test_the_beginning_of_a_clip() -> None:
    clip = make_clip(SCORED_FROM, AUDIO_44K.sample_rate_hz)
    short = clip.beginning(2.5)
    assert clip.beginning(8.0) is clip
    assert (short.frames == clip.frames[:62]).all()
    assert (short.samples == clip.samples[:110_250]).all()
    assert len(short.samples) == 110_250
    assert short.events == tuple(event for event in clip.events if event.time_s < 2.5)
    assert short.captions == clip.captions


def test_a_negative_prompt_goes_to_the_guidance() -> None:
    seen: list[torch.Tensor | None] = []

    class Guided(StandIn):
        def sample(self, *given: Any) -> Features:
            seen.append(given[3])
            return super().sample(*given[:3], None, given[4])

    settings, clip = SampleSettings(steps=3, batch_size=1), make_clip(SCORED_FROM)
    for negative in ("", "a drum"):
        model = Guided()
        Sounds(model, None, Wishes(1, negative=negative, settings=settings)).of("model", [clip])  # type: ignore[arg-type]
    assert seen[0] is None
    assert seen[1] is not None
    assert model.texts == [clip.captions[0], "a drum"]


def test_a_round_trip_gets_whole_tokens_and_is_cut_again() -> None:
    lengths: list[int] = []

    def back(samples: Tensor) -> tuple[None, Tensor]:
        lengths.append(len(samples))
        return None, samples

    clip = make_clip(3, AUDIO_44K.sample_rate_hz, pictures=False)
    sounds = Sounds(SimpleNamespace(), SimpleNamespace(audio=AUDIO_44K, back=back), Wishes(1))  # type: ignore[arg-type]
    (sound,) = sounds.of("round_trip", [clip])
    assert lengths == [345 * 1024]
    torch.testing.assert_close(sound, at_peak(torch.from_numpy(clip.samples)))


def test_shuffled_takes_a_training_clip_that_the_seed_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def make(seed: int, *args: Any, **options: Any) -> WorldClip:
        taken.append(seed)
        return make_clip(3, pictures=False)

    clips = [SimpleNamespace(seed=SCORED_FROM + k, sample_rate_hz=16_000, samples=torch.zeros(9).numpy()) for k in range(20)]
    monkeypatch.setattr("trainer.score.lines.make_clip", make)
    for seed in (0, 0, 1):
        Sounds(SimpleNamespace(), None, Wishes(20, seed=seed)).of("shuffled", clips)  # type: ignore[arg-type]
    assert taken[:20] == taken[20:40] != taken[40:]
    assert max(taken) < TRAINING_SEEDS < HELD_OUT_SEED <= SCORED_FROM
    assert len(set(taken[:20])) > 15


def test_the_command_without_the_model(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "score.json"
    command = ["score", "--clips", "3", "--seed", "5", "--lines", "truth", "silence", "--classifier", str(saved)]
    assert main([*command, "--json", str(out), "--device", "cpu"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in said[1:3]] == ["truth", "silence"]
    assert said[-1] == str(out)
    values = json.loads(out.read_text(encoding="utf-8"))
    assert list(values) == ["truth", "silence", "settings"]
    assert tuple(values["truth"]) == KEYS
    assert values["truth"]["onset_f1"] > values["silence"]["onset_f1"] == 0
    settings = values["settings"]
    assert (settings["clips"], settings["first_clip_seed"]) == (3, SCORED_FROM + 5)
    assert settings["classifier"]["accuracy"] > 0.8
    assert settings["weights"]["flow"] == str(EMBEDDED_FILE)


def test_the_command_with_the_embedded_model(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "score.json"
    command = ["score", "--clips", "1", "--seed", "1", "--lines", "model", "--steps", "1", "--guidance", "1", "--device", "cpu"]
    assert main([*command, "--weights", str(EMBEDDED_FILE), "--classifier", str(saved), "--json", str(out), "--quiet"]) == 0
    values = json.loads(out.read_text(encoding="utf-8"))
    assert all(math.isfinite(values["model"][key]) for key in KEYS)
    assert (values["settings"]["steps"], values["settings"]["guidance"]) == (1, 1.0)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("--lines", "truth", "music"), 2, "'music' is unknown"),
        (("--clips", "0"), 2, "0 clips"),
        (("--seed", "-1"), 2, "from seed -1"),
        (("--no-video", "--prompts", "none"), 2, "Neither prompts nor video"),
        (("--json", "absent/score.json"), 2, "absent"),
        (("--weights", "absent.safetensors"), 4, "absent.safetensors hold no whole model"),
        (("--classifier", str(EMBEDDED_FILE)), 4, "no material classifier"),
        (("--steps", "0"), 2, "steps = 0"),
    ],
)
def test_wrong_wishes_are_refused(args: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--quiet", *args]) == code
    assert words in capsys.readouterr().err
