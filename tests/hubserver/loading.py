"""What people load from a hub, and push to one, with PEFT and transformers as they are.

    python -m tests.hubserver.loading push BASE     HF_ENDPOINT, HF_HOME and HF_TOKEN say where and as whom
    python -m tests.hubserver.loading load

`push` publishes a model, its tokenizer and an adapter with `push_to_hub`. Both print one JSON object of what each model
answers: the sum of its logits on one sentence. A process of its own, because HF_ENDPOINT is read at import.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import moehub  # noqa: F401 (registers the MoE with transformers)

SENTENCE = "the court finds that the lessee shall pay the rent. "


def answer(model: torch.nn.Module) -> float:
    """Return the sum of the logits on one sentence, read with the base's own tokenizer."""
    ids = AutoTokenizer.from_pretrained("acme/base")(SENTENCE, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return round(float(model.eval()(ids).logits.sum()), 3)


def push(folder: Path) -> dict[str, float]:
    """Publish the base in `folder` and an adapter of it, and return what they answer here."""
    base = AutoModelForCausalLM.from_pretrained(folder)
    base.push_to_hub("acme/base")
    AutoTokenizer.from_pretrained(folder).push_to_hub("acme/base")
    answers = {"base": answer(base)}
    torch.manual_seed(0)
    base.name_or_path = base.config._name_or_path = "acme/base"
    adapter = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, parameter in adapter.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    adapter.push_to_hub("acme/pushed")
    return answers | {"pushed": answer(adapter)}


def load() -> dict[str, float]:
    """Load everything by its name on the hub, and return what it answers."""
    base = AutoModelForCausalLM.from_pretrained("acme/base")
    answers = {"base": answer(base), "pushed": answer(AutoPeftModelForCausalLM.from_pretrained("acme/pushed"))}
    answers["law"] = answer(PeftModel.from_pretrained(base, "acme/law"))
    return answers | {"moe": answer(AutoModelForCausalLM.from_pretrained("acme/moe"))}


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # of the libraries, which are not looked at here
    found = push(Path(sys.argv[2])) if sys.argv[1] == "push" else load()
    print(json.dumps(found))  # noqa: T201 (the answer)
