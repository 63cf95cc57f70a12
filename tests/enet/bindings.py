"""What several tests bind in gin; each clears the config when it is done."""

import gin


def bind_split(train=("scene0000_00", "scene0001_00"), val=("scene0002_00",), test=("scene0003_00",)) -> None:
    """Scenes that train, validate and test."""
    for name, scenes in (("train", train), ("val", val), ("test", test)):
        gin.bind_parameter(f"SplitOptions.{name}_scenes", scenes)
