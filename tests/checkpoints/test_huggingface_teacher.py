"""Folders of Hugging Face as teachers, and the published way of distilling."""

import json

import pytest
import torch
import torch.nn.functional as F

from ssl_audio.audio.frontend import Spectrogram
from ssl_audio.checkpoints.huggingface_teacher import HuggingFaceTeacher
from ssl_audio.data.batch import Batch
from ssl_audio.data.facts import Facts
from ssl_audio.errors import RecipeError
from ssl_audio.objectives import Classification, Distillation
from ssl_audio.objectives.objective import Answer
from ssl_audio.objectives.teacher import Teacher, Teachers, mean_of_scores

FACTS = Facts(labels=("high", "low"), target="pitch", crop_seconds=0.5)


def tones(clips: int = 8) -> Batch:
    time = torch.arange(8000) / 16000
    waves = torch.stack([(time * (300.0 if n % 2 else 3000.0) * 6.28 + n).sin() * 0.2 for n in range(clips)])
    samples = torch.tensor([8000, 6000] * (clips // 2))
    targets = torch.eye(2)[torch.arange(clips) % 2]
    numbers = torch.arange(clips)
    return Batch(waves, samples, numbers, numbers, tuple(map(str, range(clips))), targets=targets)


class Fixed(Teacher):
    """Says the same logits of everything, and keeps what it was shown."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits
        self.seen: list[tuple[Batch, Spectrogram]] = []

    def attach(self, backbone, objective, facts) -> None:
        pass

    def answer(self, batch: Batch, spectrogram: Spectrogram) -> Answer:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen.append((batch, spectrogram))
        return Answer(clips=self.logits)


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("weight", [0.5, 0.0])
def test_the_published_loss_is_half_targets_half_tempered_teacher(tiny_backbone, several, weight):
    torch.manual_seed(0)
    teacher = Fixed(torch.randn(8, 2))
    objective = Distillation(
        objective=Classification(), teacher=teacher, weight=weight, temperature=2.5, tempered="teacher"
    )
    objective.attach(tiny_backbone, Facts(labels=("high", "low"), several=several, crop_seconds=0.5))
    batch = tones()
    spectrogram = tiny_backbone.spectrogram(batch.waveforms, batch.samples)
    losses = objective.train()(tiny_backbone, batch, spectrogram)
    logits = objective.predict(tiny_backbone, spectrogram).clips
    if several:
        task = F.binary_cross_entropy_with_logits(logits, batch.targets)
        taught = F.binary_cross_entropy_with_logits(logits, (teacher.logits / 2.5).sigmoid())
    else:
        task = F.cross_entropy(logits, batch.targets)
        wanted = (teacher.logits / 2.5).softmax(dim=1)
        taught = (wanted * (wanted.log() - logits.log_softmax(dim=1))).sum(dim=1).mean()
    torch.testing.assert_close(losses["loss"], (1 - weight) * task + weight * taught)
    # The same augmented, mixed input for both.
    assert teacher.seen[0][0] is batch
    assert teacher.seen[0][1] is spectrogram


def test_an_ensemble_of_teachers_is_the_mean_of_their_scores(tiny_backbone):
    torch.manual_seed(0)
    one, two = torch.randn(3, 4), torch.randn(3, 4)
    expected = (one.softmax(dim=1) + two.softmax(dim=1)) / 2
    torch.testing.assert_close(mean_of_scores([one, two], several=False).softmax(dim=1), expected)
    teachers = Teachers(teachers=[Fixed(one), Fixed(two)])
    teachers.attach(tiny_backbone, Classification(), FACTS)
    batch = tones(2)
    with torch.no_grad():
        found = teachers.eval().answer(batch, tiny_backbone.spectrogram(batch.waveforms)).clips
    torch.testing.assert_close(found.softmax(dim=1), expected)
    with pytest.raises(RecipeError, match="no teachers"):
        Teachers(teachers=[])


def test_a_folder_that_holds_no_model_is_one_line(tiny_backbone, tmp_path):
    with pytest.raises(RecipeError, match=r"has no config.json; expected a folder") as error:
        HuggingFaceTeacher(folder=tmp_path).attach(tiny_backbone, Classification(), FACTS)
    assert "\n" not in str(error.value)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nonsense"}))
    with pytest.raises(RecipeError, match=r"needs transformers|cannot read it as an audio model") as error:
        HuggingFaceTeacher(folder=tmp_path).attach(tiny_backbone, Classification(), FACTS)
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    """A tiny Whisper with random weights."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("whisper")
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2}
    sizes |= {"decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, "vocab_size": 99}
    special = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id"), 1)
    transformers.WhisperModel(transformers.WhisperConfig(**sizes, **special)).save_pretrained(folder)
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    return folder


def test_an_encoder_is_fitted_to_the_training_clips_and_teaches(tiny_backbone, whisper):
    teacher = HuggingFaceTeacher(folder=whisper, seconds=0.6, layer=1)
    objective = Distillation(objective=Classification(), teacher=teacher)
    objective.attach(tiny_backbone, FACTS)
    batch = tones()
    spectrogram = tiny_backbone.spectrogram(batch.waveforms, batch.samples)
    with pytest.raises(RecipeError, match="no training clips were shown"):
        objective(tiny_backbone, batch, spectrogram)
    objective.before_training(lambda: [batch])
    with torch.autocast("cpu", torch.bfloat16):
        taught = teacher.answer(batch, spectrogram).clips
    assert torch.equal(taught.argmax(dim=1), batch.targets.argmax(dim=1))
    losses = objective(tiny_backbone, batch, spectrogram)
    losses["loss"].backward()
    assert not list(teacher.parameters())
    # Padding has no part: the states of a clip are those it has in longer padding.
    longer = HuggingFaceTeacher(folder=whisper, layer=0)
    longer.attach(tiny_backbone, Classification(), FACTS)
    shorter = HuggingFaceTeacher(folder=whisper, layer=0, seconds=0.6)
    shorter.attach(tiny_backbone, Classification(), FACTS)
    torch.testing.assert_close(longer.features(batch), shorter.features(batch), atol=0.05, rtol=0.05)
    shorter.layer = 9
    with pytest.raises(RecipeError, match=r"layer is 9, but .* has states 0 to 1"):
        shorter.features(batch)


def test_a_head_answers_by_the_names_of_its_labels(tiny_backbone, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8),
        conv_stride=(20, 16), conv_kernel=(20, 16), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2, classifier_proj_size=8, num_labels=3,
        id2label={0: "low", 1: "other", 2: "high"}, label2id={"low": 0, "other": 1, "high": 2},
    )  # fmt: skip
    model = transformers.Wav2Vec2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    teacher = HuggingFaceTeacher(folder=tmp_path)
    teacher.attach(tiny_backbone, Classification(), FACTS)
    batch = tones(2)
    found = teacher.answer(batch, tiny_backbone.spectrogram(batch.waveforms)).clips
    assert found.shape == (2, 2)
    row = batch.waveforms[1, :6000]
    normal = (row - row.mean()) / (row.var(unbiased=False) + 1e-7).sqrt()
    expected = model(normal[None]).logits[0, [2, 0]]
    torch.testing.assert_close(found[1], expected, atol=0.05, rtol=0.05)
