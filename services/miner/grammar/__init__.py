"""Grammars, apart from everything else: whoever sends one may write what llama.cpp's parser and matcher do not survive.

A grammar of a few lines can overflow the parser's stack, hide a left recursion that eats all memory, or double the
matcher's work with every token. So each request with a grammar has a process of its own with limits of time and memory,
forked from a nursery that holds the vocabulary; the engine asks it about tokens and outlives it.
"""
