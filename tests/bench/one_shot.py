"""How it is done without a daemon: a new process imports openai and posts. `python one_shot.py BASE_URL BODY_FILE`."""

import json
import sys
from pathlib import Path

import openai

NAMES = ("model", "instructions", "input", "text", "max_output_tokens", "store", "background")
body = json.loads(Path(sys.argv[2]).read_bytes())
client = openai.OpenAI(api_key="sk-test", base_url=sys.argv[1], max_retries=0)
client.responses.create(**{name: body[name] for name in NAMES})
