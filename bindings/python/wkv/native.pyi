# SPDX-License-Identifier: Apache-2.0
# The generated module. Its users are the files beside it, which say what they give and take.
from typing import Any

ModelOptions = Any

def __getattr__(name: str) -> Any: ...
