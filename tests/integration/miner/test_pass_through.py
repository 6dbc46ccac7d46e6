"""What the environment says about GPUs and the cache is what llama.cpp is given, field by field."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import pytest

from services.miner.engine.llama_backend import LlamaBackend, llama
from services.miner.loading import load_message
from services.miner.model.check import CheckedModel
from services.miner.model.gguf import read_structure
from services.miner.model.hardware import decide
from services.miner.model.probe import probe_machine
from services.miner.settings import load_miner_settings
from shared.store.records import StatIdentity
