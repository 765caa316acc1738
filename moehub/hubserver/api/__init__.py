"""The Hugging Face Hub API over HTTP."""
