"""moehub: independently trained LoRA experts become one sparse mixture-of-experts model.

Importing the package makes `AutoModelForCausalLM.from_pretrained` know MoE folders. It does so when
transformers is imported, not before, so that `moehub --help` answers at once.
"""

from pathlib import Path

# A wheel holds experts/, router/ and merge/ inside this folder; a checkout, beside it.
if not (_here := Path(__file__).parent).joinpath("experts").is_dir():
    __path__.append(str(_here.parent))

from moehub.registration import register_when_imported

__version__ = "0.1.0"

register_when_imported()
