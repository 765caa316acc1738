"""One expert: text → packed tokens → LoRA training → expert folder, and its router statistics."""
