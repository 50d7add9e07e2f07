"""A study's results as a Weights & Biases artifact, with a new version for each change."""

from collections.abc import Sequence
from pathlib import Path

from xformer.errors import RunError
from xformer.loggers.wandb import effective_mode


def log_study(
    name: str, files: Sequence[Path], *, project: str, entity: str | None, directory: Path, question: str
) -> str:
    """Log a study's table, figures and findings as an artifact, in a separate run of the study's group.

    Args:
        name: The name of the study and the group.
        files: The files to log, by name.
        project: The project.
        entity: The team or user; None for the account's default.
        directory: The parent directory of an offline run, for `xformer sync`.
        question: The study's research question.

    Returns:
        How it was logged: `online`, `offline` or `disabled`, depending on the key and WANDB_MODE.

    Raises:
        RunError: The service cannot be reached.
    """
    import wandb

    mode = effective_mode("auto")
    directory.mkdir(parents=True, exist_ok=True)
    try:
        with wandb.init(
            dir=directory, project=project, entity=entity, group=name, job_type="record", name=f"{name}: findings",
            mode=mode, reinit="finish_previous", settings=wandb.Settings(silent=True, console="off"),
        ) as run:  # fmt: skip
            artifact = wandb.Artifact(f"study-{name}", type="study", description=question)
            for file in files:
                artifact.add_file(str(file), name=file.name)
            run.log_artifact(artifact)
    except wandb.errors.Error as error:
        raise RunError(
            f"Weights & Biases did not take the findings ({error}); "
            "set WANDB_MODE=offline to store them for xformer sync."
        ) from error
    return mode
