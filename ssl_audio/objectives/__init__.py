"""What is learnt: objectives, teachers, masking and losses. Floor 4."""

from ssl_audio.objectives.altered_frames import AlteredFrames
from ssl_audio.objectives.classification import Classification, HeadOptions
from ssl_audio.objectives.distillation import Distillation
from ssl_audio.objectives.event_augmentation import EventAugmentation
from ssl_audio.objectives.event_detection import EventDetection
from ssl_audio.objectives.event_head import EventHeadOptions
from ssl_audio.objectives.masked_patches import MaskedPatches
from ssl_audio.objectives.objective import Answer, Objective
from ssl_audio.objectives.predicted_units import PredictedUnits
from ssl_audio.objectives.sound_events import Consistency, Mixing, SoundEvents
from ssl_audio.objectives.teacher import AveragedTeacher, Teacher, Teachers

__all__ = [
    "AlteredFrames",
    "Answer",
    "AveragedTeacher",
    "Classification",
    "Consistency",
    "Distillation",
    "EventAugmentation",
    "EventDetection",
    "EventHeadOptions",
    "HeadOptions",
    "MaskedPatches",
    "Mixing",
    "Objective",
    "PredictedUnits",
    "SoundEvents",
    "Teacher",
    "Teachers",
]
