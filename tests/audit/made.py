"""A module of `planted`, or of any other package, ready to be measured."""

from typing import Any

from xformer.audit.examine import quietly
from xformer.audit.finding import find_calling
from xformer.audit.subject import Subject
from xformer.audit.target import make_target


def subject(path: str, *arguments: str, call: str | None = None, step: str | None = None, **options: Any) -> Subject:
    path = path if "." in path else f"tests.audit.planted.{path}"
    with quietly():
        return find_calling(make_target(path, arguments), options, call, step)
