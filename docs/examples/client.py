#!/usr/bin/env python3
"""Runs commands through the JSON mode. The standard library is enough.

    python3 client.py CAPSULECTL
"""
import base64
import json
import subprocess
import sys


def run(request, capsulectl="capsulectl"):
    """Runs an ExecutionRequest and returns the ExecutionResponse, for refusals too."""
    done = subprocess.run([capsulectl, "run", "--json", "--exit-code-mode", "envelope"],
                          input=json.dumps(request).encode(), stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def output(response, stream="stdout"):
    """The bytes of a stream: text unless the command wrote something else."""
    text = response.get(stream, "")
    if response.get(stream + "_encoding") == "base64":
        return base64.b64decode(text)
    return text.encode()


def main():
    capsulectl = sys.argv[1] if len(sys.argv) > 1 else "capsulectl"
    for request in (
        {"command": ["python3", "-c", "print(6*7)"]},
        {"command": ["sleep", "60"], "timeout_ms": 200, "grace_ms": 0},
        {"command": ["head", "-c3", "/dev/zero"]},
        {"comand": ["ls"]},
    ):
        response = run(request, capsulectl)
        print(response["status"], response["termination"]["reason"], response["exit_code"], output(response))
        if "error" in response:
            print("  ", response["error"]["code"], response["error"]["message"])


if __name__ == "__main__":
    main()
