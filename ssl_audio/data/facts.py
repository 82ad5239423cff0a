"""What is known of the data of a training before it begins."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What an objective may know of the data.

    Args:
        labels: Names of the labels, in the order of the targets; empty without labels.
        target: Kind of label.
        several: A clip may have several labels.
        crop_seconds: Length of the clips; None takes them whole.
        crops_per_clip: Crops of each clip in a batch.
        frame_seconds: Length of the frames that have targets; None where none have.
        folders: How many folders of shards clips are from.
        equal_batches: Every rank has equally many clips in each batch.
    """

    labels: tuple[str, ...] = ()
    target: str | None = None
    several: bool = False
    crop_seconds: float | None = None
    crops_per_clip: int = 1
    frame_seconds: float | None = None
    folders: int = 1
    equal_batches: bool = True
