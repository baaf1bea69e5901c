"""The system behind the page: one room per capability, one noun each."""
