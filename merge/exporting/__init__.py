"""A MoE → formats of others: Mixtral, one dense model, PEFT adapters, GGUF; and how much of it arrived."""
