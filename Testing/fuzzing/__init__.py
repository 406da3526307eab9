"""Damaged inputs for every reader of both programs: sound examples, mutations, and the processes that read them."""
