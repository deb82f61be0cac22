#!/usr/bin/env python3
"""A tool that lets a language model run Python, in the form of OpenAI's function calls.

    python3 openai_tool.py CAPSULECTL

Pass TOOL in `tools` of the request to the model, and for each of message.tool_calls send back what
answer() gives. main() plays the model, so that this file runs without a network.
"""
import json
import subprocess
import sys

TOOL = {
    "type": "function",
    "function": {
        "name": "run_python",
        "description": "Run a Python program in a fresh sandbox without network and get what it prints.",
        "parameters": {
            "type": "object",
            "properties": {"code": {"type": "string", "description": "the program"}},
            "required": ["code"],
            "additionalProperties": False,
        },
    },
}


def run_python(capsulectl, code):
    request = {"command": ["python3", "-c", code], "timeout_ms": 20000, "resources": {"max_output_bytes": 20000}}
    done = subprocess.run([capsulectl, "run", "--json", "--profile", "ai-agent", "--exit-code-mode", "envelope"],
                          input=json.dumps(request).encode(), stdout=subprocess.PIPE, check=True)
    response = json.loads(done.stdout)
    # The model sees the outcome, never a stack trace of ours.
    keep = {"status": response["status"], "reason": response["termination"]["reason"], "exit_code": response["exit_code"]}
    for key in ("stdout", "stderr"):
        if response.get(key):
            keep[key] = response[key]
    if "error" in response:
        keep["error"] = response["error"]["message"]
    return keep


def answer(capsulectl, call):
    """The message with role tool for one of message.tool_calls."""
    try:
        result = run_python(capsulectl, json.loads(call["function"]["arguments"])["code"])
    except (ValueError, KeyError, TypeError):
        result = {"status": "error", "error": "the arguments are no object with code"}
    return {"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)}


def main():
    capsulectl = sys.argv[1] if len(sys.argv) > 1 else "capsulectl"
    for arguments in ('{"code": "print(sum(range(101)))"}', '{"code": "1/0"}', "{}"):
        print(answer(capsulectl, {"id": "call_1", "type": "function", "function": {"name": "run_python", "arguments": arguments}}))


if __name__ == "__main__":
    main()
