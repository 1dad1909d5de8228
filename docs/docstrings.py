"""What mkdocstrings does not read in our docstrings: ``Example:``, tables drawn with ``===``."""

import re
from typing import Any

import griffe

TABLE = re.compile(r"^=+(?: +=+)+\n.*?^=+(?: +=+)+$(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


class HouseStyle(griffe.Extension):
    """Examples are shown as code, tables as they stand in the docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the text of one docstring before it is parsed."""
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = TABLE.sub(lambda table: f"```text\n{table[0]}\n```", text)
