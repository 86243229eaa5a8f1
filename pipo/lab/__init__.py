"""The lab: small tasks and a family of small models, so that everything runs for real on a laptop. Torch-free here."""

from pipo.lab.family import (
    Manifest,
    TaskSettings,
    family_folder,
    items,
    lab_manifest,
    resolve_model,
)
from pipo.lab.tasks import TASKS, LabItem, extract_answer

__all__ = [
    "TASKS",
    "LabItem",
    "Manifest",
    "TaskSettings",
    "extract_answer",
    "family_folder",
    "items",
    "lab_manifest",
    "resolve_model",
]
